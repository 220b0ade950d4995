//! A process that runs the guest.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use echovisor_event::Term;
use echovisor_log::{
    arbiter::Answer,
    link::{Link, LinkError, Message, Ours, Receiver, Refuse, RefuseCode, check_hello},
};
use echovisor_recorder::{
    Entry, JournalReader,
    gate::Gate,
    primary::{Engine, Order, Promise, Ticket},
};
use echovisor_snapshot::sync::Source;

use super::{Step, Want, world::LiveGuest};
use crate::{
    mutant::Mutant,
    net::{flush, receive},
    time::{MILLISECOND, Time},
};

/// How long a connection may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Entries of the journal that may wait; real guests wait, too, when there are more.
const JOURNAL: usize = 40;

/// A primary.
pub(crate) struct Primary {
    pub(crate) engine: Engine,
    pub(crate) gate: Arc<Gate>,
    pub(crate) guest: LiveGuest,
    pub(crate) term: Term,
    ours: Ours,
    journal: JournalReader,
    connection: Option<Receiver>,
    accepting: VecDeque<Accepting>,
    /// States that are being read, and when that is done.
    states: VecDeque<(Time, Ticket, Source)>,
    answer: Option<Answer>,
    /// The operator wants a switchover.
    pub(crate) switch_wanted: bool,
    pub(crate) throttled: bool,
    finished: bool,
    mutant: Mutant,
    /// What the gate's clock shows.
    time: Arc<Mutex<Time>>,
}

struct Accepting {
    link: Link,
    until: Duration,
}

impl Primary {
    pub(crate) fn new(
        engine: Engine,
        gate: Arc<Gate>,
        guest: LiveGuest,
        journal: JournalReader,
        ours: Ours,
        mutant: Mutant,
        time: Arc<Mutex<Time>>,
    ) -> Primary {
        Primary {
            engine,
            gate,
            guest,
            term: ours.term,
            ours,
            journal,
            connection: None,
            accepting: VecDeque::new(),
            states: VecDeque::new(),
            answer: None,
            switch_wanted: false,
            throttled: false,
            finished: false,
            mutant,
            time,
        }
    }

    /// Sets the gate's clock.
    pub(crate) fn set_time(&self, now: Time) {
        *self.time.lock().expect("one thread") = now;
    }

    /// Somebody connects.
    pub(crate) fn accept(&mut self, link: Link, local: Duration) {
        self.accepting.push_back(Accepting { link, until: local + HANDSHAKE });
    }

    pub(crate) fn answered(&mut self, answer: Answer) {
        self.answer = Some(answer);
    }

    /// Whether the guest's thread may run.
    pub(crate) fn guest_may_run(&self) -> bool {
        !self.throttled && self.journal.entries().len() < JOURNAL
    }

    /// When to step again, if nothing comes in before: by the host's clock, and by the simulation's.
    pub(crate) fn wake_at(&self) -> (Option<Duration>, Option<Time>) {
        let accepting = self.accepting.iter().map(|accepting| accepting.until).min();
        let local = [self.engine.wake_at(), accepting].into_iter().flatten().min();
        (local, self.states.iter().map(|(ready, ..)| *ready).min())
    }

    /// Handles one thing that is there, as a node's loop does; whether there was any.
    pub(crate) fn step(&mut self, step: &mut Step<'_>) -> bool {
        self.set_time(step.now);
        let worked = self.work(step);
        if worked {
            self.end_if_done(step.local);
            self.obey(step);
            self.mutant.spoil_gate(&self.gate);
        }
        worked
    }

    fn work(&mut self, step: &mut Step<'_>) -> bool {
        let local = step.local;
        if let Some(message) = self.connection.as_mut().and_then(receive) {
            match message {
                Ok(message) => self.engine.message(local, &message),
                Err(error) => self.engine.link_lost(local, &error.to_string()),
            }
            return true;
        }
        if std::mem::take(&mut self.switch_wanted) {
            self.engine.hand_over(local);
            return true;
        }
        if let Some(answer) = self.answer.take() {
            self.engine.answered(local, answer);
            return true;
        }
        if let Some(index) = self.states.iter().position(|(ready, ..)| *ready <= step.now) {
            let (_, ticket, source) = self.states.remove(index).expect("a state");
            self.engine.give(local, ticket, source);
            return true;
        }
        let has_room = self.engine.has_room();
        let settled = self.journal.entries().is_empty() || !has_room || step.rng.u8(..4) == 0;
        if settled && let Some(flushed) = flush(self.engine.sender()) {
            match flushed {
                Ok(()) => self.engine.flushed(local),
                Err(error) => self.engine.link_lost(local, &error.to_string()),
            }
            return true;
        }
        if has_room && let Ok(entry) = self.journal.entries().try_recv() {
            match entry {
                Entry::Batch(batch, mark) => {
                    self.engine.batch(local, &batch, mark).expect("a batch that continues the log");
                    self.journal.recycle(batch);
                }
                Entry::Paused(number, at, digest) => self.engine.paused(local, number, at, digest),
                Entry::Capture(captured) => {
                    if let Some(Promise { ticket, .. }) = self.engine.promise(captured.capture.position()) {
                        let ready = step.now + step.rng.u64(MILLISECOND..300 * MILLISECOND);
                        self.states.push_back((ready, ticket, Source::new(captured.capture)));
                    }
                }
            }
            step.wants.push(Want::RunGuest);
            return true;
        }
        if self.hello(local, step.wants) {
            return true;
        }
        if self.engine.wake_at().is_some_and(|at| at <= local) {
            self.engine.tick(local);
            return true;
        }
        false
    }

    /// Hears the hellos that have come in; whether there was one.
    fn hello(&mut self, local: Duration, wants: &mut Vec<Want>) -> bool {
        for index in 0..self.accepting.len() {
            let accepting = &mut self.accepting[index];
            let hello = match receive(&mut accepting.link.receiver) {
                None if local < accepting.until => continue,
                Some(Ok(Message::Hello(hello))) => Some(hello),
                _ => None,
            };
            let Link { mut sender, receiver, .. } = self.accepting.remove(index).expect("a connection").link;
            let Some(hello) = hello else { return true };
            if let Err(error) = check_hello(&hello, &self.ours) {
                let code = match error {
                    LinkError::Superseded { .. } => RefuseCode::Superseded,
                    error => panic!("all nodes fit to each other: {error}"),
                };
                let _ = sender.queue(&Message::Refuse(Refuse { code, text: error.to_string() }));
                wants.push(Want::HangUp(sender));
            } else {
                match self.engine.hello(local, &hello, sender) {
                    Ok(()) => self.connection = Some(receiver),
                    Err(sender) => wants.push(Want::HangUp(sender)),
                }
            }
            return true;
        }
        false
    }

    fn end_if_done(&mut self, local: Duration) {
        if self.guest.stopped && self.journal.entries().is_empty() && !self.gate.holds() && !self.finished {
            self.engine.end(local);
        }
    }

    fn obey(&mut self, step: &mut Step<'_>) {
        while let Some(order) = self.engine.order() {
            match order {
                Order::TakeImage => {
                    self.guest.image_wanted = true;
                    step.wants.push(Want::RunGuest);
                }
                Order::Ask(question) => step.wants.push(Want::Ask(question)),
                Order::Start => {}
                Order::Throttle(throttled) => {
                    self.throttled = throttled;
                    step.wants.push(Want::RunGuest);
                }
                Order::Pause(number) => {
                    self.guest.pause(number);
                    step.wants.push(Want::RunGuest);
                }
                Order::Resume => {
                    self.guest.resume();
                    step.wants.push(Want::RunGuest);
                }
                Order::Keep(_) => {}
                Order::Halt(record) => step.wants.push(Want::Follow(record)),
                Order::Finish => {
                    self.finished = true;
                    self.engine.say_goodbye("the guest was stopped");
                    let _ = flush(self.engine.sender());
                    step.wants.push(Want::Exit);
                }
            }
        }
        if self.engine.sender().is_none() {
            self.connection = None;
        }
    }
}
