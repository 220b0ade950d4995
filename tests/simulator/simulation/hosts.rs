//! What the processes on the hosts do: each handles what has come, and its guest runs.

use std::sync::{Arc, Mutex};

use echovisor_event::{Effect, Nanos, NodeId, Term};
use echovisor_log::{
    SegmentStart,
    arbiter::{Asking, Record},
    link::{Fingerprint, Ours},
};
use echovisor_machine::{Machine, cpu::scripted::ScriptedCpu};
use echovisor_recorder::{
    Journal,
    gate::{Gate, Outlet},
    primary::Engine,
};
use echovisor_tests::scripted;

use super::{Event, Released, Simulation};
use crate::{
    mutant::Mutant,
    net::flush,
    node::{Process, Role, Step, Want, primary::Primary, secondary::Dial, world::LiveGuest},
    oracles::{Answer, Verdict},
    time::{MILLISECOND, SECOND, Time},
};

/// Where a primary's effects leave.
struct Mouth {
    term: Term,
    node: NodeId,
    released: Released,
}

impl Outlet for Mouth {
    fn release(&mut self, effect: Effect<'_>) {
        if let Effect::Frame(frame) = effect {
            let answer = Answer::read(frame);
            self.released.lock().expect("one thread").push((self.term, self.node, answer));
        }
    }
}

impl Simulation {
    pub(super) fn identity(&mut self, slot: usize) -> NodeId {
        self.slots[slot].incarnation += 1;
        let mut id = [0; 16];
        id[0] = slot as u8 + 1;
        id[8..12].copy_from_slice(&self.slots[slot].incarnation.to_be_bytes());
        NodeId(id)
    }

    /// A process becomes the primary. `resend` hands what its predecessor may not have sent to the gate.
    pub(super) fn go_live(
        &mut self,
        slot: usize,
        id: NodeId,
        record: Record,
        machine: Machine<ScriptedCpu>,
        clock: (Nanos, Time),
        resend: impl FnOnce(&Gate),
    ) -> Verdict {
        self.oracles.fencing.live(record.term, id)?;
        let (host, now) = (self.slots[slot].clock, Arc::new(Mutex::new(self.now)));
        let mouth = Mouth { term: record.term, node: id, released: self.released.clone() };
        let reading = now.clone();
        let gate = Gate::with_clock(Box::new(mouth), move || host.read(*reading.lock().expect("one thread")));
        let gate = Arc::new(gate);
        resend(&gate);
        let (journal, reader) = Journal::new();
        let guest = LiveGuest::new(machine, gate.clone(), journal, self.rng.fork(), clock);
        let ours = Ours { vm: record.vm, node: id, term: record.term, fingerprint: Fingerprint::default() };
        let engine = Engine::new(
            gate.clone(),
            scripted::config().to_bytes(),
            SegmentStart::first(record.term),
            false,
            Some((ours.clone(), record, self.plan.primary)),
        );
        let mut primary = Primary::new(engine, gate, guest, reader, ours, self.plan.mutant, now);
        let local = self.slots[slot].clock.read(self.now);
        for link in self.slots[slot].backlog.drain(..) {
            primary.accept(link, local);
        }
        self.slots[slot].process = Some(Process { id, role: Role::Primary(Box::new(primary)), asking: None });
        self.slots[slot].guest_at = None;
        self.run_guest(slot, self.now);
        self.wake(slot, self.now);
        Ok(())
    }

    /// A process handles what there is to do, until it is interrupted.
    pub(super) fn step(&mut self, slot: usize) -> Verdict {
        let host = &mut self.slots[slot];
        if host.wake_at != Some(self.now) {
            return Ok(());
        }
        host.wake_at = None;
        if host.paused_until.max(host.stalled_until) > self.now {
            self.wake(slot, self.now);
            return Ok(());
        }
        tracing::trace!("{} us: host {slot}", self.now / 1000);
        let local = host.clock.read(self.now);
        let interrupted = loop {
            let mut wants = Vec::new();
            let Some(process) = &mut self.slots[slot].process else { return Ok(()) };
            let mut step =
                Step { now: self.now, local, instants: self.instants, rng: &mut self.rng, wants: &mut wants };
            let worked = match &mut process.role {
                Role::Primary(primary) => primary.step(&mut step),
                Role::Secondary(secondary) => secondary.step(&mut step),
            };
            for want in wants {
                self.fulfil(slot, want)?;
            }
            self.look()?;
            if !worked {
                break false;
            }
            if self.rng.u8(..8) == 0 {
                break true;
            }
        };
        self.pump();
        let Some(process) = &self.slots[slot].process else { return Ok(()) };
        let (by_host, by_simulation) = match &process.role {
            Role::Primary(primary) => primary.wake_at(),
            Role::Secondary(secondary) => secondary.wake_at(),
        };
        let clock = self.slots[slot].clock;
        for at in [by_host.map(|at| clock.when(at)), by_simulation].into_iter().flatten() {
            self.wake(slot, at.max(self.now + 1));
        }
        if interrupted {
            let after = self.rng.u64(1_000..300_000);
            self.wake(slot, self.now + after);
        }
        Ok(())
    }

    pub(super) fn guest(&mut self, slot: usize, incarnation: u32) {
        if self.slots[slot].guest_at != Some(self.now) || self.slots[slot].incarnation != incarnation {
            return;
        }
        self.slots[slot].guest_at = None;
        if self.slots[slot].paused_until > self.now {
            return self.run_guest(slot, self.now);
        }
        let now = self.now;
        let Some(primary) = self.any_primary(slot) else { return };
        if !primary.guest_may_run() {
            return self.wake(slot, now);
        }
        primary.set_time(now);
        let again = primary.guest.run(now);
        let (term, passed, answers) = (primary.term, primary.guest.passed(), primary.guest.answers());
        self.oracles.lockstep.passed(term, passed);
        self.oracles.history.made(term, answers);
        if let Some(again) = again {
            self.run_guest(slot, again.max(now + 1));
        }
        let after = self.rng.u64(1_000..50_000);
        self.wake(slot, now + after);
    }

    pub(super) fn fulfil(&mut self, slot: usize, want: Want) -> Verdict {
        match want {
            Want::Ask(question) => {
                if let Some(answer) = self.plan.mutant.answer(&question) {
                    self.answer(slot, answer);
                } else if let Some(process) = &mut self.slots[slot].process {
                    process.asking = Some(Asking::new(question));
                    self.ask(slot, self.slots[slot].incarnation);
                }
            }
            Want::Dial(at, hello) => {
                let (clock, incarnation) = (self.slots[slot].clock, self.slots[slot].incarnation);
                self.slots[slot].dialling += 1;
                let number = self.slots[slot].dialling;
                if let Some(Process { role: Role::Secondary(secondary), .. }) = &mut self.slots[slot].process
                {
                    let until = at + self.plan.secondary.suspicion;
                    secondary.dial = Some(Dial { hello, until, link: None, failed: None });
                }
                self.schedule(clock.when(at), Event::Dial(slot, incarnation, number));
            }
            Want::HangUp(mut sender) => drop(flush(Some(&mut sender))),
            Want::RunGuest => self.run_guest(slot, self.now),
            Want::Promote(record) => self.promote(slot, record)?,
            Want::Fail => self.crash(slot),
            Want::Follow(record) => self.follow(slot, &record),
            Want::Exit => {
                self.slots[slot].process = None;
                self.slots[slot].backlog.clear();
                let after = self.rng.u64(100 * MILLISECOND..SECOND);
                self.slots[slot].start_at = self.now + after;
            }
        }
        Ok(())
    }

    fn promote(&mut self, slot: usize, record: Record) -> Verdict {
        let Some(Process { id, role: Role::Secondary(mut secondary), .. }) = self.slots[slot].process.take()
        else {
            return Ok(());
        };
        let from = (secondary.term, secondary.begun().expect("it has a machine"));
        let live = secondary.replica.take().expect("it has a machine").into_live(self.instants);
        self.oracles.history.inherited(from, record.term, live.answers)?;
        let (unconfirmed, mutant) = (live.unconfirmed, self.plan.mutant);
        self.go_live(slot, id, record, live.machine, live.clock, |gate| {
            if mutant != Mutant::NothingSentAgain {
                unconfirmed.resend(|at, effect| gate.pass(at, effect));
            }
        })
    }
}
