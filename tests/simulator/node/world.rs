//! The live world of a simulated primary: what the recorder's own world does with the host, this does with virtual time.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use echovisor_event::{Digest, Effect, Event, Nanos, Position, limits::PAGE_SIZE};
use echovisor_log::{Cause, Record};
use echovisor_machine::{Consumer, Effects, Here, Machine, Next, Stop, World, cpu::scripted::ScriptedCpu};
use echovisor_recorder::{Captured, Journal, Purpose, gate::Gate};
use echovisor_snapshot::{Capture, state_digest};
use fastrand::Rng;

use crate::{
    oracles::Answer,
    time::{MILLISECOND, Time},
};

/// How long a record may wait for others before its batch is sent.
const FLUSH_AFTER: Time = MILLISECOND;

/// Positions that the guest may pass in one go.
const SLICE: u32 = 24;

/// Out of so many slices one ends with a delta.
const DELTAS: u8 = 16;

/// Frames that may wait for the guest.
const WAITING: usize = 64;

/// A guest and its world.
pub(crate) struct LiveGuest {
    machine: Machine<ScriptedCpu>,
    world: Live,
    pub(crate) image_wanted: bool,
    pub(crate) stop_wanted: bool,
    pub(crate) stopped: bool,
    /// When it is to stand still, and to go on, in order.
    pauses: VecDeque<Pause>,
    standing: bool,
    /// The last checkpoint, whose digest is not in the log yet.
    untold: Option<(Position, Digest)>,
    /// Knows what has changed since the last delta.
    changed: Consumer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    Begin(u64),
    End,
}

struct Live {
    gate: Arc<Gate>,
    journal: Journal,
    rng: Rng,
    now: Time,
    /// The virtual clock showed this at that time.
    clock: (Nanos, Time),
    frames: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
    here: Option<Position>,
    told: bool,
    burst: usize,
    slice: u32,
    pause: bool,
    /// Positions between checkpoints.
    cadence: u64,
    checkpoint_at: Position,
    /// Since when something waits to be sent.
    opened: Option<Time>,
    /// Where the guest was, with its trail, and what it answered, since somebody looked.
    passed: Vec<(Position, u64)>,
    answers: Vec<(Position, Answer)>,
}

impl LiveGuest {
    pub(crate) fn new(
        mut machine: Machine<ScriptedCpu>,
        gate: Arc<Gate>,
        journal: Journal,
        mut rng: Rng,
        clock: (Nanos, Time),
    ) -> LiveGuest {
        let changed = machine.track_pages().expect("a scripted processor tells");
        // Whoever follows has executed to here, or is given all of the state.
        machine.harvested(&changed);
        let cadence = rng.u64(50..600);
        let checkpoint_at = Position(machine.position().0 + cadence);
        let world = Live {
            gate,
            journal,
            rng,
            now: 0,
            clock,
            frames: VecDeque::new(),
            buffer: Vec::new(),
            here: None,
            told: false,
            burst: 0,
            slice: 0,
            pause: false,
            cadence,
            checkpoint_at,
            opened: None,
            passed: Vec::new(),
            answers: Vec::new(),
        };
        LiveGuest {
            machine,
            world,
            image_wanted: false,
            stop_wanted: false,
            stopped: false,
            pauses: VecDeque::new(),
            standing: false,
            untold: None,
            changed,
        }
    }

    /// A frame comes in; if too many wait, it is lost.
    pub(crate) fn receive(&mut self, frame: Vec<u8>) {
        if self.world.frames.len() < WAITING {
            self.world.frames.push_back(frame);
        }
    }

    /// Where the guest was since the last call, with its trail.
    pub(crate) fn passed(&mut self) -> Vec<(Position, u64)> {
        std::mem::take(&mut self.world.passed)
    }

    /// What the guest has answered since the last call.
    pub(crate) fn answers(&mut self) -> Vec<(Position, Answer)> {
        std::mem::take(&mut self.world.answers)
    }

    /// Asks it to stand still.
    pub(crate) fn pause(&mut self, number: u64) {
        self.pauses.push_back(Pause::Begin(number));
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self) {
        self.pauses.push_back(Pause::End);
    }

    /// Lets the guest run for a while; when to do so again, if nothing happens before.
    pub(crate) fn run(&mut self, now: Time) -> Option<Time> {
        if self.standing && self.pauses.pop_front() == Some(Pause::End) {
            self.standing = false;
        }
        if self.stopped || self.standing {
            return None;
        }
        self.world.now = now;
        self.world.slice = SLICE;
        self.world.pause = self.image_wanted || self.stop_wanted || !self.pauses.is_empty();
        match self.machine.run(&mut self.world) {
            Ok(Stop::Paused) => {}
            other => panic!("a scripted guest that does not end: {other:?}"),
        }
        if self.world.rng.u8(..DELTAS) == 0 {
            self.delta();
        }
        let at = self.machine.position();
        if self.world.rng.u8(..3) == 0 {
            self.tell_digest();
        }
        if at >= self.world.checkpoint_at {
            self.checkpoint();
        }
        if std::mem::take(&mut self.image_wanted) {
            let state = self.machine.save().expect("a boundary");
            let capture = Capture::whole(self.machine.memory(), state);
            self.world.flush();
            let (purpose, pause, capture) = (Purpose::Join, Default::default(), Arc::new(capture));
            self.world.journal.capture(Captured { purpose, capture, pause });
        }
        if let Some(Pause::Begin(number)) = self.pauses.pop_front() {
            let digest = self.checkpoint();
            self.tell_digest();
            self.world.flush();
            self.world.journal.paused(number, at, digest);
            self.standing = true;
            return self.pauses.front().map(|_| now);
        }
        if self.stop_wanted {
            self.checkpoint();
            self.tell_digest();
            self.world.journal.push(at, Record::Stop).expect("room in the batch");
            self.world.flush();
            self.stopped = true;
            return None;
        }
        self.world.flush_if_due();
        if self.world.slice == 0 || !self.world.frames.is_empty() {
            return Some(now + self.world.rng.u64(1_000..200_000));
        }
        self.world.opened.map(|opened| opened + FLUSH_AFTER)
    }

    /// As if the guest had made no exit for too long. Its parts go out one by one, so that it may be torn.
    fn delta(&mut self) {
        let at = self.machine.position();
        let world = &mut self.world;
        world.journal.arrived(at, self.machine.trail().0);
        self.machine.jump();
        let pages = self.machine.changed_pages(&self.changed).expect("a scripted processor tells");
        let state = self.machine.save().expect("a boundary").to_bytes();
        for page in pages.iter() {
            if world.journal.is_full() || world.rng.u8(..4) == 0 {
                world.flush();
            }
            let mut contents = [0; PAGE_SIZE];
            self.machine.memory().read_page(page, &mut contents);
            let record = Record::Page { page: page as u64, contents: &contents };
            world.journal.push(at, record).expect("room in the batch");
        }
        let record = Record::Delta { cause: Cause::Quantum, state: &state };
        world.journal.push(at, record).expect("room in the batch");
        world.journal.arrived(self.machine.position(), self.machine.trail().0);
        world.opened.get_or_insert(world.now);
    }

    fn checkpoint(&mut self) -> Digest {
        self.tell_digest();
        let at = self.machine.position();
        let digest = state_digest(self.machine.memory(), &self.machine.save().expect("a boundary"));
        self.world.journal.arrived(at, self.machine.trail().0);
        self.world.journal.push(at, Record::Checkpoint).expect("room in the batch");
        self.world.flush();
        self.world.checkpoint_at = Position(at.0 + self.world.cadence);
        self.untold = Some((at, digest));
        digest
    }

    /// The digest of the last checkpoint is known, if it was not before.
    fn tell_digest(&mut self) {
        if let Some((of, digest)) = self.untold.take() {
            let at = self.machine.position();
            self.world.journal.arrived(at, self.machine.trail().0);
            self.world.journal.push(at, Record::Digest { of, digest }).expect("room in the batch");
            self.world.opened.get_or_insert(self.world.now);
        }
    }
}

impl Live {
    fn clock(&self, here: &Here) -> Nanos {
        Nanos(self.clock.0.0 + self.now.saturating_sub(self.clock.1)).max(here.clock)
    }

    fn flush(&mut self) {
        let released = self.gate.released(self.journal.watermark());
        self.journal.flush(released);
        self.opened = None;
    }

    /// An effect waits for the log behind it; other records may wait for more.
    fn flush_if_due(&mut self) {
        let due = self.opened.is_some_and(|opened| self.now >= opened + FLUSH_AFTER);
        if due || self.journal.is_full() || self.journal.is_dirty() && self.gate.holds() {
            self.flush();
        }
    }

    fn write(&mut self, here: &Here, event: Event<'_>) {
        self.journal.event(here.position, event).expect("room in the batch");
        self.opened.get_or_insert(self.now);
    }
}

impl Effects for Live {
    fn effect(&mut self, at: Position, effect: Effect<'_>) {
        if let Effect::Frame(frame) = effect {
            self.answers.push((at, Answer::read(frame)));
        }
        self.gate.pass(at, effect);
        self.opened.get_or_insert(self.now);
    }
}

impl World for Live {
    type Error = Infallible;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, Infallible> {
        if self.here != Some(here.position) {
            self.here = Some(here.position);
            (self.told, self.burst) = (false, 0);
            self.slice = self.slice.saturating_sub(1);
            self.journal.arrived(here.position, here.trail);
            self.passed.push((here.position, here.trail));
        }
        if self.slice == 0 || self.pause || here.position >= self.checkpoint_at {
            return Ok(Next::Pause);
        }
        if here.idle.is_none() {
            return Ok(Next::Enter);
        }
        if !self.told {
            if self.frames.is_empty() {
                return Ok(Next::Pause);
            }
            self.told = true;
            let event = Event::Clock(self.clock(here));
            self.write(here, event);
            return Ok(Next::Event(event));
        }
        if here.frames_wanted > 0 && self.burst < 4 && !self.frames.is_empty() {
            self.burst += 1;
            self.buffer = self.frames.pop_front().expect("a frame");
            self.journal.event(here.position, Event::Frame(&self.buffer)).expect("room in the batch");
            return Ok(Next::Event(Event::Frame(&self.buffer)));
        }
        // A batch may end anywhere.
        if self.rng.u8(..8) == 0 {
            self.flush();
        } else {
            self.flush_if_due();
        }
        Ok(Next::Enter)
    }
}
