//! What passes between hosts, clients and the arbiter.

use std::io;

use echovisor_log::{
    arbiter::{ASK_AGAIN, Answer as Decision, Asking},
    link::{Address, LinkError, Message},
};

use super::{Event, Simulation};
use crate::{
    arbiter::{Arbiter, Outcome},
    net::flush,
    node::{Process, Role, secondary::Dial},
    plan::SLOTS,
    time::Time,
};

impl Simulation {
    /// How often a frame comes through: once, or not, or twice.
    pub(super) fn copies(&mut self) -> u32 {
        match self.plan.frame_loss {
            0 => 1,
            loss if self.rng.u32(..loss) == 0 => 0,
            loss => 1 + u32::from(self.rng.u32(..loss) == 0),
        }
    }

    /// A client's frame goes to whoever runs the guest, or believes so.
    pub(super) fn broadcast(&mut self, frame: &[u8]) {
        for slot in 0..SLOTS {
            if self.any_primary(slot).is_some() {
                for _ in 0..self.copies() {
                    let delay = self.net.delay();
                    let incarnation = self.slots[slot].incarnation;
                    self.schedule(self.now + delay, Event::Frame(slot, incarnation, frame.to_vec()));
                }
            }
        }
    }

    /// The arbiter is called.
    pub(super) fn ask(&mut self, slot: usize, incarnation: u32) {
        let delay = self.arbiter.delay();
        self.schedule(self.now + delay, Event::Call(slot, incarnation));
    }

    pub(super) fn call(&mut self, slot: usize, incarnation: u32) {
        let host = &self.slots[slot];
        // Whoever dies before its call is carried out has not made it.
        let Some(process) = host.process.as_ref().filter(|_| host.incarnation == incarnation) else { return };
        let Some(call) = process.asking.as_ref().map(Asking::call) else { return };
        if host.paused_until > self.now && self.rng.bool() {
            // It was stopped before it came so far.
            return self.schedule(self.slots[slot].paused_until, Event::Call(slot, incarnation));
        }
        let outcome = if self.arbiter.loses(self.now) {
            Arbiter::silence()
        } else {
            let outcome = self.arbiter.carry_out(call, self.now);
            if self.arbiter.loses(self.now) { Arbiter::silence() } else { Ok(outcome) }
        };
        let delay = self.arbiter.delay();
        self.schedule(self.now + delay, Event::Heard(slot, incarnation, outcome));
    }

    pub(super) fn heard(&mut self, slot: usize, incarnation: u32, outcome: Outcome) {
        let host = &mut self.slots[slot];
        if host.paused_until > self.now {
            let at = host.paused_until;
            return self.schedule(at, Event::Heard(slot, incarnation, outcome));
        }
        let Some(process) = host.process.as_mut().filter(|_| host.incarnation == incarnation) else { return };
        let Some(asking) = &mut process.asking else { return };
        match asking.heard(outcome) {
            Ok(Some(decision)) => {
                process.asking = None;
                self.answer(slot, decision);
            }
            Ok(None) => self.ask(slot, incarnation),
            Err(_) => {
                let at = self.now + ASK_AGAIN.as_nanos() as Time;
                self.schedule(at, Event::AskAgain(slot, incarnation));
            }
        }
    }

    pub(super) fn answer(&mut self, slot: usize, decision: Decision) {
        match self.slots[slot].process.as_mut().map(|process| &mut process.role) {
            Some(Role::Primary(primary)) => primary.answered(decision),
            Some(Role::Secondary(secondary)) => secondary.answered(decision),
            None => {}
        }
        self.wake(slot, self.now);
    }

    pub(super) fn dialling(&mut self, slot: usize, incarnation: u32, number: u64) -> Option<&mut Dial> {
        let host = &mut self.slots[slot];
        if host.incarnation != incarnation || host.dialling != number {
            return None;
        }
        match &mut host.process {
            Some(Process { role: Role::Secondary(secondary), .. }) => secondary.dial.as_mut(),
            _ => None,
        }
    }

    /// A process dials its primary.
    pub(super) fn dial(&mut self, slot: usize, incarnation: u32, number: u64) {
        let paused = self.slots[slot].paused_until;
        if paused > self.now {
            return self.schedule(paused, Event::Dial(slot, incarnation, number));
        }
        if self.dialling(slot, incarnation, number).is_none() {
            return;
        }
        let Some(Process { role: Role::Secondary(secondary), .. }) = &self.slots[slot].process else {
            return;
        };
        let target = secondary.target;
        let suspicion = self.plan.secondary.suspicion;
        let unreachable = !self.slots[target].powered
            || self.net.blocked_until(slot, target, self.now).is_some()
            || self.net.blocked_until(target, slot, self.now).is_some();
        if unreachable {
            let at = self.now + suspicion.as_nanos() as Time;
            let error = LinkError::Timeout { after: suspicion };
            return self.schedule(at, Event::NotDialled(slot, incarnation, number, error));
        }
        if self.slots[target].process.is_none() {
            let address = Address::Unix("simulated".into());
            let error = LinkError::Dial { address, source: io::ErrorKind::ConnectionRefused.into() };
            let at = self.now + self.net.delay();
            return self.schedule(at, Event::NotDialled(slot, incarnation, number, error));
        }
        let (mut near, far) = self.net.connect(slot, target);
        let until = self.slots[slot].clock.read(self.now) + suspicion;
        let hello = self.dialling(slot, incarnation, number).expect("it was there").hello.clone();
        near.sender.queue(&Message::Hello(hello)).expect("a short message");
        let _ = flush(Some(&mut near.sender));
        let dial = self.dialling(slot, incarnation, number).expect("it was there");
        dial.link = Some(near);
        dial.until = until;
        let local = self.slots[target].clock.read(self.now);
        match self.any_primary(target) {
            Some(primary) => primary.accept(far, local),
            // Its host takes the connection; nobody answers before it is the primary.
            None => self.slots[target].backlog.push(far),
        }
        self.wake(slot, self.now);
        self.pump();
    }
}
