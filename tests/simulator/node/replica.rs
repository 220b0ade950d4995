//! The replaying machine of a simulated secondary.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use echovisor_event::{Effect, Nanos, Position};
use echovisor_log::Batch;
use echovisor_machine::{Effects, Machine, MachineConfig, cpu::scripted::ScriptedCpu};
use echovisor_replayer::{
    Arrived, FollowError, Follower, History, Progress, Reached, Replay, Rewind, Rewindable, Unconfirmed,
    Witness,
    secondary::{Base, Fetched, Unmade, make},
};
use echovisor_tests::scripted;
use vm_memory::{Bytes, GuestAddress};

use crate::{
    oracles::Answer,
    time::{Instants, Time},
};

/// A machine that follows the log.
pub(crate) struct Replica {
    follower: Follower<ScriptedCpu, Rewindable<Feed>, Kept>,
    config: MachineConfig,
    batches: Arc<Mutex<Batches>>,
    pub(crate) progress: Arc<Progress>,
    /// Where it began, what its clock showed then, and when that was.
    pub(crate) begun: Position,
    clock: (Nanos, Time),
    /// The log's end was executed: the operator had stopped the guest.
    pub(crate) stopped: bool,
    /// It is not what the log says any more.
    pub(crate) strayed: bool,
    /// It has gone back, and executes again what there is of the log.
    pub(crate) returning: bool,
}

/// A replica that goes live.
pub(crate) struct Live {
    pub(crate) machine: Machine<ScriptedCpu>,
    pub(crate) unconfirmed: Unconfirmed,
    pub(crate) answers: Vec<(Position, Answer)>,
    pub(crate) clock: (Nanos, Time),
}

#[derive(Default)]
struct Batches {
    waiting: VecDeque<Arrived>,
    /// How many may be executed now.
    allowed: usize,
}

struct Feed(Arc<Mutex<Batches>>);

/// Keeps unconfirmed effects as a secondary does, and all answers for the oracles.
#[derive(Default)]
struct Kept {
    unconfirmed: Unconfirmed,
    answers: Vec<(Position, Answer)>,
}

impl Replica {
    /// Makes a machine of a state that was fetched.
    pub(crate) fn make(fetched: Fetched, progress: Arc<Progress>, now: Time) -> Result<Replica, Unmade> {
        let digest = fetched.begin.digest;
        let (machine, config) = make(fetched, scripted::processor)?;
        let batches = Arc::new(Mutex::new(Batches::default()));
        let (begun, clock) = (machine.position(), (machine.clock(), now));
        let history = Rewindable::new(Feed(batches.clone()));
        let replay = Replay::new(history, Kept::default(), true, progress.clone());
        let follower = Follower::new(machine, replay).keeping_verified(digest)?;
        let (stopped, strayed, returning) = (false, false, false);
        Ok(Replica { follower, config, batches, progress, begun, clock, stopped, strayed, returning })
    }

    /// Goes back to its last verified state. What was wrong with it is not in that.
    pub(crate) fn go_back(&mut self) -> Result<(), String> {
        let went = self.follower.roll_back(scripted::processor, &self.config.devices());
        went.map_err(|error| error.to_string())?;
        (self.strayed, self.returning) = (false, true);
        Ok(())
    }

    /// Goes on though it has left the log's course, to be compared elsewhere.
    pub(crate) fn stray(&mut self) {
        self.follower.tolerate();
        self.strayed = true;
    }

    /// Executes what there is of the log, and gives what is left of the machine.
    pub(crate) fn into_base(mut self) -> Base {
        // How far a machine comes that has left the log's course matters to nobody.
        let _ = self.run(usize::MAX);
        Base::of(self.follower.into_parts().0)
    }

    pub(crate) fn append(&mut self, arrived: Arrived) {
        self.batches.lock().expect("one thread").waiting.push_back(arrived);
    }

    /// Executes at most so many batches. Whether there are more.
    pub(crate) fn run(&mut self, batches: usize) -> Result<bool, FollowError<Infallible>> {
        if self.stopped {
            return Ok(false);
        }
        self.batches.lock().expect("one thread").allowed = batches;
        loop {
            match self.follower.run(None)? {
                // What was kept has been executed again; what came meanwhile follows.
                Reached::LogEnds if self.follower.history().take_rewound() => {}
                Reached::LogEnds => break,
                Reached::Stopped => {
                    self.stopped = true;
                    break;
                }
                other => panic!("a scripted guest that does not end: {other:?}"),
            }
        }
        Ok(!self.batches.lock().expect("one thread").waiting.is_empty())
    }

    /// A byte of its memory changes that its guest does not use.
    pub(crate) fn rot(&self) {
        let memory = self.follower.machine().memory().mmap();
        memory.write_obj(1_u8, GuestAddress(0x70_0000)).expect("an address in RAM");
    }

    pub(crate) fn machine(&self) -> &Machine<ScriptedCpu> {
        self.follower.machine()
    }

    /// Ends the replay.
    pub(crate) fn into_live(self, instants: Instants) -> Live {
        let (machine, kept, clock) = self.follower.into_parts();
        // As long as no time was in the log, it is the one of the image that counts.
        let clock = if clock.0 == self.clock.0 { self.clock } else { (clock.0, instants.time(clock.1)) };
        let mut unconfirmed = kept.unconfirmed;
        unconfirmed.released(self.progress.released());
        Live { machine, unconfirmed, answers: kept.answers, clock }
    }
}

impl History for Feed {
    type Error = Infallible;

    fn next(&mut self) -> Result<Option<Arrived>, Infallible> {
        let mut batches = self.0.lock().expect("one thread");
        if batches.allowed == 0 {
            return Ok(None);
        }
        batches.allowed -= 1;
        Ok(batches.waiting.pop_front())
    }

    fn recycle(&mut self, _: Batch) {}
}

impl Effects for Kept {
    fn effect(&mut self, at: Position, effect: Effect<'_>) {
        if let Effect::Frame(frame) = effect {
            self.answers.push((at, Answer::read(frame)));
        }
        self.unconfirmed.effect(at, effect);
    }
}

impl Witness for Kept {
    fn released(&mut self, up_to: Position) {
        self.unconfirmed.released(up_to);
    }
}

impl Rewind for Kept {
    fn rewind(&mut self, to: Position) {
        self.unconfirmed.rewind(to);
        self.answers.retain(|(at, _)| *at <= to);
    }
}
