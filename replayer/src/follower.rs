//! Running a machine along its log.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use echovisor_event::{Digest, Nanos, Position};
use echovisor_machine::{
    Machine, Memory, RunError, Stop,
    boot::Crash,
    cpu::{Cpu, CpuError},
    devices::DevicesConfig,
};
use echovisor_snapshot::{RunningDigest, state_digest};

use crate::{
    delta::DeltaError,
    history::History,
    replay::{Due, Replay, ReplayError, Witness},
    rewind::{Rewind, Rewindable},
    spoil::{Spoil, SpoilError},
    verified::{RollBackError, Verified},
};

/// Where a run along the log ended.
#[derive(Debug)]
pub enum Reached {
    /// The operator stopped the recorded guest here.
    Stopped,
    /// The position asked for.
    Position,
    /// The log has no more; the guest could go on.
    LogEnds,
    /// The guest powered itself off.
    PoweredOff(u32),
    /// An exception ended the guest, as it ended the recorded one.
    Crashed(Box<Crash>),
}

/// Why a machine does not follow its log.
#[derive(Debug, thiserror::Error)]
pub enum FollowError<E: std::error::Error> {
    /// The log is damaged, or the guest did something else than the recorded one.
    #[error(transparent)]
    Run(#[from] RunError<ReplayError<E>>),
    /// The processor does not tell its state.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// A fault could not be made that was asked for.
    #[error(transparent)]
    Spoil(#[from] SpoilError),
    /// The state at a checkpoint is not the recorded one.
    #[error("at position {at} the state's digest is {found}, recorded was {expected}")]
    Digest {
        /// The checkpoint.
        at: Position,
        /// As recorded.
        expected: Digest,
        /// As replayed.
        found: Digest,
    },
}

impl<E: std::error::Error> FollowError<E> {
    /// Whether machine and log disagree, as opposed to a log that cannot be read or a processor that failed.
    #[must_use]
    pub fn is_divergence(&self) -> bool {
        !matches!(
            self,
            FollowError::Cpu(_)
                | FollowError::Run(RunError::Cpu(_) | RunError::World(ReplayError::History(_)))
        )
    }
}

/// How far a follower is, for other threads.
#[derive(Debug, Default)]
pub struct Progress {
    executed: AtomicU64,
    checkpoints: AtomicU64,
    jumps: AtomicU64,
    released: AtomicU64,
    last: Mutex<Option<(Position, Digest)>>,
}

impl Progress {
    /// The position where the machine stands, or stood not long ago.
    pub fn executed(&self) -> Position {
        Position(self.executed.load(Ordering::Relaxed))
    }

    /// Checkpoints compared, all equal.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.load(Ordering::Relaxed)
    }

    /// Deltas that the machine has taken over.
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Relaxed)
    }

    /// The last checkpoint.
    pub fn last_checkpoint(&self) -> Option<(Position, Digest)> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The primary says that effects up to here have left its gate.
    pub fn release(&self, up_to: Position) {
        self.released.fetch_max(up_to.0, Ordering::Relaxed);
    }

    /// Effects up to here have left the primary's gate, as far as it said so beside its batches.
    pub fn released(&self) -> Position {
        Position(self.released.load(Ordering::Relaxed))
    }

    pub(crate) fn at(&self, position: Position) {
        self.executed.store(position.0, Ordering::Relaxed);
    }

    fn jump(&self) {
        self.jumps.fetch_add(1, Ordering::Relaxed);
    }

    fn checkpoint(&self, at: Position, digest: Digest) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, digest));
    }
}

/// A machine with its log.
pub struct Follower<C, H, W> {
    machine: Machine<C>,
    replay: Replay<H, W>,
    digest: StateDigest,
    /// The last checkpoint, as long as the log has not said what its digest is.
    pending: Option<(Position, Digest)>,
    /// What to go back to.
    verified: Option<Verified>,
    /// Faults to be made, for tests.
    spoils: Option<flume::Receiver<Spoil>>,
}

/// How the state's digest is computed at a checkpoint.
enum StateDigest {
    /// From all of RAM.
    Whole,
    /// From what has changed, but for the first one.
    Changed(Option<RunningDigest>),
}

impl<C: Cpu, H: History, W: Witness> Follower<C, H, W> {
    /// Follows `replay` with `machine`, which must stand where the log begins. Each checkpoint reads all of RAM, so that it
    /// relies on nobody's account of what has changed.
    pub fn new(machine: Machine<C>, mut replay: Replay<H, W>) -> Self {
        replay.begin(machine.clock(), machine.memory().pages());
        Follower { machine, replay, digest: StateDigest::Whole, pending: None, verified: None, spoils: None }
    }

    /// Reads at a checkpoint only the pages that have changed since the last one, because a primary waits for this machine.
    #[must_use]
    pub fn in_lockstep(mut self) -> Self {
        self.digest = StateDigest::Changed(None);
        self
    }

    /// Keeps the last state that was proved to be the recorded one, to go back to: now this one, which has this digest.
    ///
    /// # Errors
    /// If the processor does not tell its state, or keeps no account of the guest's writes.
    pub fn keeping_verified(mut self, digest: Digest) -> Result<Self, CpuError> {
        self.verified = Some(Verified::new(&mut self.machine, digest, self.replay.clock())?);
        Ok(self)
    }

    /// Makes the faults that come in, behind the next checkpoint. For tests only.
    #[must_use]
    pub fn spoilt_by(mut self, spoils: flume::Receiver<Spoil>) -> Self {
        self.spoils = Some(spoils);
        self
    }

    /// Runs until the log ends, or to the first boundary at or after `to`. Compares the trail with every batch and the
    /// state's digest at every checkpoint.
    ///
    /// # Errors
    /// At the first difference.
    pub fn run(&mut self, to: Option<Position>) -> Result<Reached, FollowError<H::Error>> {
        self.replay.pause_at(to);
        loop {
            match self.machine.run(&mut self.replay)? {
                Stop::Kicked => {}
                Stop::PoweredOff(code) => return self.end().map(|()| Reached::PoweredOff(code)),
                Stop::Crashed(crash) => return self.end().map(|()| Reached::Crashed(crash)),
                Stop::Paused => match self.replay.due() {
                    Some(Due::Checkpoint) => self.checkpoint()?,
                    Some(Due::Digest(at, expected)) => self.compare(at, expected)?,
                    Some(Due::Delta) => self.jump()?,
                    Some(Due::Stop) => return Ok(Reached::Stopped),
                    Some(Due::Reached) => return Ok(Reached::Position),
                    Some(Due::LogEnds) | None => return Ok(Reached::LogEnds),
                },
            }
        }
    }

    /// Goes on after a difference: from now on nothing is compared. For a machine whose state is of no use any more but to be
    /// compared elsewhere.
    pub fn tolerate(&mut self) {
        self.replay.tolerate();
    }

    /// The guest has ended by itself, and so must the log: its last state is a checkpoint, unless it was cut off before.
    fn end(&mut self) -> Result<(), FollowError<H::Error>> {
        self.machine.settle()?;
        let (at, trail) = (self.machine.position(), self.machine.trail().0);
        while let Some(due) = self.replay.end(at, trail).map_err(RunError::World)? {
            match due {
                Due::Digest(of, expected) => self.compare(of, expected)?,
                _ => self.checkpoint()?,
            }
            // The last one is the last record.
            if matches!(due, Due::Digest(of, _) if of == at) {
                break;
            }
        }
        Ok(())
    }

    /// Takes over the state to which the log leads here.
    fn jump(&mut self) -> Result<(), FollowError<H::Error>> {
        let at = self.machine.position();
        let state = self.replay.delta(at, self.machine.memory()).map_err(RunError::World)?;
        let taken = self.machine.overwrite(&state).map_err(DeltaError::from);
        taken.map_err(|source| RunError::World(ReplayError::Delta { at, source }))?;
        self.replay.progress().jump();
        Ok(())
    }

    /// Computes the digest of the state here.
    fn checkpoint(&mut self) -> Result<(), FollowError<H::Error>> {
        let found = match &mut self.digest {
            StateDigest::Whole => state_digest(self.machine.memory(), &self.machine.save()?),
            StateDigest::Changed(Some(running)) => running.take(&mut self.machine)?,
            StateDigest::Changed(none) => {
                none.insert(RunningDigest::new(&mut self.machine)?).take(&mut self.machine)?
            }
        };
        self.pending = Some((self.machine.position(), found));
        if let Some(verified) = &mut self.verified {
            verified.stage(&mut self.machine, self.replay.clock())?;
            self.replay.mark();
        }
        if let Some(spoils) = &self.spoils {
            for spoil in spoils.try_iter() {
                spoil.apply(&mut self.machine)?;
            }
        }
        Ok(())
    }

    /// Compares the digest at a checkpoint. One from before this began to follow the log is not known here.
    fn compare(&mut self, at: Position, expected: Digest) -> Result<(), FollowError<H::Error>> {
        let Some((_, found)) = self.pending.take_if(|(pending, _)| *pending == at) else { return Ok(()) };
        if found != expected {
            return Err(FollowError::Digest { at, expected, found });
        }
        if let Some(verified) = &mut self.verified {
            verified.confirm(found);
            self.replay.confirm();
        }
        self.replay.progress().checkpoint(at, found);
        Ok(())
    }

    /// Where the log comes from.
    pub fn history(&mut self) -> &mut H {
        self.replay.history()
    }

    /// The machine.
    pub fn machine(&self) -> &Machine<C> {
        &self.machine
    }

    /// Replaces the machine by another one in the same state.
    pub fn replace_machine(&mut self, machine: Machine<C>) {
        self.machine = machine;
        if let StateDigest::Changed(running) = &mut self.digest {
            *running = None;
        }
    }

    /// The machine, what saw its effects, and the last time in the log with the moment when it came in.
    pub fn into_parts(self) -> (Machine<C>, W, (Nanos, Instant)) {
        let Follower { mut machine, replay, digest, pending: _, verified, spoils: _ } = self;
        if let StateDigest::Changed(Some(running)) = digest {
            running.end(&mut machine);
        }
        if let Some(verified) = verified {
            verified.end(&mut machine);
        }
        let clock = replay.clock();
        (machine, replay.into_witness(), clock)
    }
}

impl<C: Cpu, H: History, W: Rewind> Follower<C, Rewindable<H>, W> {
    /// Goes back to the last state that was proved to be the recorded one, and executes and compares the log from there again,
    /// which ends once where all of it was executed that there had been. `cpu` makes the processor of a machine with this
    /// configuration.
    ///
    /// # Errors
    /// If there is nothing to go back to; then the machine is of no use.
    pub fn roll_back(
        &mut self,
        cpu: impl FnOnce(&Memory) -> Result<C, CpuError>,
        config: &DevicesConfig,
    ) -> Result<Position, RollBackError> {
        let verified = self.verified.as_mut().ok_or(RollBackError::NotKept)?;
        if !self.replay.history().is_complete() {
            return Err(RollBackError::Log);
        }
        let memory = self.machine.memory().clone();
        let (state, clock) = verified.put_back(&memory)?;
        let mut machine = Machine::restore(cpu(&memory)?, memory, config, state)?;
        let to = state.position;
        verified.follow(&mut machine)?;
        self.replace_machine(machine);
        self.pending = None;
        self.replay.rewind(to, clock);
        Ok(to)
    }
}
