//! The scheduler: events in the order of virtual time, and what each of them does.

mod faults;
mod hosts;
mod network;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use echovisor_event::{Nanos, NodeId, Term, VmId};
use echovisor_log::{
    arbiter::{Mode, Record, rules},
    link::{Link, LinkError},
};
use echovisor_recorder::primary::protocol::State;
use fastrand::Rng;

use crate::{
    arbiter::{Arbiter, Outcome},
    clients::Clients,
    guests,
    net::Net,
    node::{Process, Role, primary::Primary, secondary::Secondary},
    oracles::{Answer, Oracles, Verdict, Violation},
    plan::{Fault, Plan, SLOTS, Whom},
    time::{Clock, Instants, MILLISECOND, SECOND, Time},
};

/// How long everything may take to recover once the faults have ended.
const RECOVERY: Time = 10 * SECOND;

/// How long a run goes on after the guest's end.
const LAST_WORDS: Time = 3 * SECOND;

/// How often the operator looks.
const OPERATOR: Time = 250 * MILLISECOND;

/// What one run has shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub(crate) virtual_time: Time,
    /// Stands for the whole course.
    pub(crate) course: u64,
    pub(crate) answered: u64,
    pub(crate) released: usize,
    pub(crate) takeovers: u64,
    pub(crate) crashes: u64,
    /// All who could have run the guest were lost.
    pub(crate) lost: bool,
    /// The operator stopped the guest.
    pub(crate) ended: bool,
}

/// Something that happens.
enum Event {
    /// A process looks what there is to do.
    Wake(usize),
    /// A guest's thread runs.
    Guest(usize, u32),
    /// A client sends.
    Client(usize),
    /// A client's frame comes in.
    Frame(usize, u32, Vec<u8>),
    /// An answer comes to the client.
    Reply(Answer),
    /// A call reaches the arbiter.
    Call(usize, u32),
    /// What came of it reaches the process.
    Heard(usize, u32, Outcome),
    /// A process asks the arbiter again.
    AskAgain(usize, u32),
    /// A process dials; the last number tells which dialling.
    Dial(usize, u32, u64),
    /// That dialling has failed.
    NotDialled(usize, u32, u64, LinkError),
    /// Something goes wrong.
    Fault(Fault),
    /// A host has power again.
    PowerUp(usize),
    /// Somebody looks after the nodes.
    Operator,
    /// The operator stops the guest.
    Stop,
    /// The operator wants the roles to be swapped.
    Switch(Whom),
    /// Nothing goes wrong any more.
    Heal,
}

/// A host.
struct Slot {
    incarnation: u32,
    process: Option<Process>,
    clock: Clock,
    paused_until: Time,
    /// Until when the thread that moves messages does nothing.
    stalled_until: Time,
    powered: bool,
    /// When the process will be looked at next.
    wake_at: Option<Time>,
    /// When the guest's thread will run next.
    guest_at: Option<Time>,
    /// Which dialling is the last one.
    dialling: u64,
    /// Connections that the host has taken and the process has not.
    backlog: Vec<Link>,
    /// When the operator starts a new process.
    start_at: Time,
}

/// An effect that has left.
type Released = Arc<Mutex<Vec<(Term, NodeId, Answer)>>>;

pub(crate) struct Simulation {
    plan: Plan,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    serial: u64,
    rng: Rng,
    instants: Instants,
    slots: Vec<Slot>,
    net: Net,
    arbiter: Arbiter,
    clients: Clients,
    oracles: Oracles,
    released: Released,
    run: Run,
    healed: bool,
    /// When the guest's end went on record.
    ended_at: Option<Time>,
}

impl Simulation {
    pub(crate) fn new(plan: Plan) -> Simulation {
        // The plan has used the seed itself.
        let mut rng = Rng::with_seed(plan.seed ^ 0x5eed);
        let slots = (0..SLOTS)
            .map(|_| Slot {
                incarnation: 0,
                process: None,
                clock: Clock::new(&mut rng),
                paused_until: 0,
                stalled_until: 0,
                powered: true,
                wake_at: None,
                guest_at: None,
                dialling: 0,
                backlog: Vec::new(),
                start_at: 0,
            })
            .collect();
        Simulation {
            now: 0,
            events: BTreeMap::new(),
            serial: 0,
            instants: Instants::new(),
            slots,
            net: Net::new(rng.fork(), plan.delay),
            arbiter: Arbiter::new(rng.fork(), plan.arbiter_delay, plan.arbiter_loss),
            clients: Clients::new(rng.fork(), plan.clients, plan.thought),
            rng,
            plan,
            oracles: Oracles::default(),
            released: Released::default(),
            run: Run::default(),
            healed: false,
            ended_at: None,
        }
    }

    /// Runs to the end, or until a rule is broken.
    pub(crate) fn run(mut self) -> Result<Run, Violation> {
        self.begin()?;
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.note(&event);
            self.handle(event)?;
            self.look()?;
            if self.is_over() {
                break;
            }
            if at > self.plan.heal_at + RECOVERY && !self.arbiter.ended() {
                self.oracles.progress.judge(false, || self.describe())?;
                break;
            }
        }
        self.run.virtual_time = self.now;
        self.run.answered = self.clients.answered;
        self.run.released = self.oracles.history.count();
        self.run.takeovers = self.arbiter.record.map_or(0, |record| record.term.0 - 1);
        self.run.lost = self.oracles.progress.is_lost();
        self.run.ended = self.arbiter.ended();
        Ok(self.run)
    }

    /// Mixes into the number that stands for the course.
    fn note(&mut self, event: &Event) {
        let kind = match event {
            Event::Wake(slot) => 1 + *slot as u64,
            Event::Guest(slot, _) => 11 + *slot as u64,
            Event::Reply(answer) => answer.checksum,
            _ => 21,
        };
        let mix =
            |course: u64, word: u64| (course ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.run.course = mix(mix(self.run.course, self.now), kind);
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.serial += 1;
        self.events.insert((at.max(self.now), self.serial), event);
    }

    fn wake(&mut self, slot: usize, at: Time) {
        let host = &self.slots[slot];
        let at = at.max(self.now).max(host.paused_until).max(host.stalled_until);
        if self.slots[slot].wake_at.is_none_or(|already| at < already) {
            self.slots[slot].wake_at = Some(at);
            self.schedule(at, Event::Wake(slot));
        }
    }

    fn run_guest(&mut self, slot: usize, at: Time) {
        let at = at.max(self.now).max(self.slots[slot].paused_until);
        if self.slots[slot].guest_at.is_none_or(|already| at < already) {
            self.slots[slot].guest_at = Some(at);
            let incarnation = self.slots[slot].incarnation;
            self.schedule(at, Event::Guest(slot, incarnation));
        }
    }

    fn begin(&mut self) -> Verdict {
        let id = self.identity(0);
        let record = rules::start(None, VmId([7; 16]), id).expect("nobody runs it");
        self.arbiter.record = Some(record);
        self.go_live(0, id, record, guests::boot(), (Nanos::ZERO, 0), |_| {})?;
        for (at, fault) in self.plan.faults.clone() {
            self.schedule(at, Event::Fault(fault));
        }
        for (at, whom) in self.plan.switches.clone() {
            self.schedule(at, Event::Switch(whom));
        }
        for client in 0..self.clients.count() {
            self.schedule(0, Event::Client(client));
        }
        if let Some(at) = self.plan.stop_at {
            self.schedule(at, Event::Stop);
        }
        self.schedule(self.plan.heal_at, Event::Heal);
        self.schedule(50 * MILLISECOND, Event::Operator);
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Verdict {
        match event {
            Event::Wake(slot) => self.step(slot)?,
            Event::Guest(slot, incarnation) => self.guest(slot, incarnation),
            Event::Client(client) => {
                if let Some((request, again)) = self.clients.send(client, self.now) {
                    self.broadcast(&guests::request(request));
                    self.schedule(again, Event::Client(client));
                }
            }
            Event::Frame(slot, incarnation, frame) => {
                if let Some(primary) = self.primary(slot, incarnation) {
                    primary.guest.receive(frame);
                    self.run_guest(slot, self.now);
                }
            }
            Event::Reply(answer) => {
                if let Some((client, at)) = self.clients.hear(answer, self.now) {
                    self.schedule(at, Event::Client(client));
                }
            }
            Event::Call(slot, incarnation) => self.call(slot, incarnation),
            Event::Heard(slot, incarnation, outcome) => self.heard(slot, incarnation, outcome),
            Event::AskAgain(slot, incarnation) => self.ask(slot, incarnation),
            Event::Dial(slot, incarnation, number) => self.dial(slot, incarnation, number),
            Event::NotDialled(slot, incarnation, number, error) => {
                if let Some(dial) = self.dialling(slot, incarnation, number) {
                    dial.failed = Some(error);
                    self.wake(slot, self.now);
                }
            }
            Event::Fault(fault) => self.fault(fault),
            Event::PowerUp(slot) => {
                self.slots[slot].powered = true;
                self.net.reset(slot);
                self.pump();
            }
            Event::Operator => self.operate(),
            Event::Stop => {
                let holder = self.holder();
                if let Some(primary) = holder.and_then(|slot| self.any_primary(slot)) {
                    primary.guest.stop_wanted = true;
                    self.run_guest(holder.expect("it was there"), self.now);
                }
            }
            Event::Switch(whom) => self.switch(whom),
            Event::Heal => self.heal(),
        }
        Ok(())
    }

    /// What must hold after everything that happens.
    fn look(&mut self) -> Verdict {
        let record = self.arbiter.record.expect("there always is one");
        let released = std::mem::take(&mut *self.released.lock().expect("one thread"));
        for (term, node, answer) in released {
            self.oracles.fencing.released(term, node, &record)?;
            let at = self.oracles.history.released(term, answer)?;
            self.oracles.protection.released(term, at);
            for _ in 0..self.copies() {
                let delay = self.net.delay();
                self.schedule(self.now + delay, Event::Reply(answer));
            }
        }
        for slot in &self.slots {
            let Some(Process { id, role: Role::Secondary(secondary), .. }) = &slot.process else { continue };
            if let Some(what) = secondary.diverged.as_ref().filter(|_| !secondary.rotten) {
                self.oracles.lockstep.diverged(what)?;
            }
            if secondary.engine.is_eligible() {
                self.oracles.protection.eligible(*id, secondary.engine.held(), &record)?;
            }
            if let Some(replica) = &secondary.replica {
                let machine = replica.machine();
                self.oracles.lockstep.follows(secondary.term, machine.position(), machine.trail().0)?;
            }
        }
        Ok(())
    }

    fn pump(&mut self) {
        let mut wake = Vec::new();
        self.net.pump(self.now, &mut wake);
        for (slot, at) in wake {
            self.wake(slot, at);
        }
    }

    fn any_primary(&mut self, slot: usize) -> Option<&mut Primary> {
        match &mut self.slots[slot].process {
            Some(Process { role: Role::Primary(primary), .. }) => Some(primary),
            _ => None,
        }
    }

    fn any_secondary(&mut self, slot: usize) -> Option<&mut Secondary> {
        match &mut self.slots[slot].process {
            Some(Process { role: Role::Secondary(secondary), .. }) => Some(secondary),
            _ => None,
        }
    }

    fn primary(&mut self, slot: usize, incarnation: u32) -> Option<&mut Primary> {
        if self.slots[slot].incarnation == incarnation { self.any_primary(slot) } else { None }
    }

    /// The slot of the process that holds the guest, as the arbiter says, if it lives.
    fn holder(&self) -> Option<usize> {
        let holder = self.arbiter.record?.holder;
        self.slot_of(holder)
    }

    fn slot_of(&self, id: NodeId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.process.as_ref().is_some_and(|process| process.id == id))
    }

    /// Whether there is nothing more to see.
    fn is_over(&mut self) -> bool {
        if self.arbiter.ended() {
            // Everybody who can hear it hears it.
            let ended_at = *self.ended_at.get_or_insert(self.now);
            return self.now > ended_at + LAST_WORDS || self.slots.iter().all(|slot| slot.process.is_none());
        }
        if self.oracles.progress.is_lost() && self.healed {
            return true;
        }
        self.healed && self.clients.fresh >= 3 && self.is_protected()
    }

    fn is_protected(&mut self) -> bool {
        let Some(Record { mode: Mode::Protected(peer), .. }) = self.arbiter.record else { return false };
        let eligible = self.slot_of(peer).is_some_and(|slot| match &self.slots[slot].process {
            Some(Process { role: Role::Secondary(secondary), .. }) => secondary.engine.is_eligible(),
            _ => false,
        });
        let holder = self.holder();
        let linked = holder
            .and_then(|slot| self.any_primary(slot))
            .is_some_and(|primary| matches!(primary.engine.state(), State::Protected(_, true)));
        eligible && linked
    }

    /// Where everybody is, for people.
    fn describe(&self) -> String {
        let mut text = format!("the arbiter's record is {:?}", self.arbiter.record);
        for (number, slot) in self.slots.iter().enumerate() {
            let state = match &slot.process {
                None => "down".to_owned(),
                Some(Process { id, role: Role::Primary(primary), asking }) => {
                    format!("{id} primary {:?}, asking: {asking:?}", primary.engine.state())
                }
                Some(Process { id, role: Role::Secondary(secondary), asking }) => {
                    let state = secondary.engine.state();
                    format!("{id} secondary {state:?} of host {}, asking: {asking:?}", secondary.target)
                }
            };
            text.push_str(&format!("; host {number}: {state}"));
        }
        text
    }
}
