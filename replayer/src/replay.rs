//! The world of a replay: answers from the log, and compares.

use std::{sync::Arc, time::Instant};

use echovisor_event::{Digest, Effect, Event, Nanos, Position, Stamped};
use echovisor_log::{Cursor, Mark, Record};
use echovisor_machine::{Effects, Here, MachineState, Memory, Next, World};

use crate::{
    delta::{Delta, DeltaError},
    follower::Progress,
    history::{Arrived, History},
    rewind::{Rewind, Rewindable},
};

/// Sees what the replayed guest does to the outside; nothing of it leaves.
pub trait Witness: Effects {
    /// The primary says that effects up to here have left its gate.
    fn released(&mut self, up_to: Position);
}

/// Why a replay cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The log cannot be read further.
    #[error(transparent)]
    History(E),
    /// The guest passed a position where the log has something for it.
    #[error("the guest went from before position {missed} to {at}, but the log has a record at {missed}")]
    Missed {
        /// Position of the record.
        missed: Position,
        /// Where the guest is.
        at: Position,
    },
    /// The guest ended where the recorded one went on.
    #[error("the guest ended at position {at}, but the log goes on")]
    Ended {
        /// Where it ended.
        at: Position,
    },
    /// The guest did something else than the recorded one.
    #[error(
        "at position {at} the trail is {found:08x}, recorded was {expected:08x}: the guest did something else"
    )]
    Trail {
        /// Where it was noticed; the difference is before it and after the last batch.
        at: Position,
        /// As recorded.
        expected: u32,
        /// As replayed.
        found: u32,
    },
    /// The log takes the guest to a state that it cannot take.
    #[error("at position {at}: {source}")]
    Delta {
        /// Where it is.
        at: Position,
        /// Why not.
        source: DeltaError,
    },
}

/// What the machine was paused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The state's digest is to be computed.
    Checkpoint,
    /// The digest at this checkpoint is to be compared with this one. Where the log begins behind the checkpoint, there is
    /// nothing to compare.
    Digest(Position, Digest),
    /// The machine is to take over a state.
    Delta,
    /// The operator stopped the guest here.
    Stop,
    /// The position that [`Replay::pause_at`] named is reached.
    Reached,
    /// The log has no more.
    LogEnds,
}

/// The world of a replay.
pub struct Replay<H, W> {
    history: H,
    witness: W,
    compares: bool,
    /// A stop is no end if the log goes on behind it.
    passes_stops: bool,
    tolerates: bool,
    progress: Arc<Progress>,
    current: Option<Arrived>,
    cursor: Cursor,
    pause_at: Option<Position>,
    due: Option<Due>,
    /// What there is of the next delta.
    delta: Delta,
    /// The last time in the log, and when it came in.
    clock: (Nanos, Instant),
}

/// What comes next, without its bytes: decided first, so that the answer can borrow them.
enum Step {
    Answer(Next<'static>),
    Deliver,
    Page,
    Skip,
    Stop,
    Fetch,
}

impl<H: History, W: Witness> Replay<H, W> {
    /// Replays `history` in the sight of `witness`, and tells its progress. `compares`: pause for the digests of
    /// checkpoints; the trail is compared in any case.
    pub fn new(history: H, witness: W, compares: bool, progress: Arc<Progress>) -> Replay<H, W> {
        let clock = (Nanos::ZERO, Instant::now());
        Replay {
            history,
            witness,
            compares,
            passes_stops: false,
            tolerates: false,
            progress,
            current: None,
            cursor: Cursor::default(),
            pause_at: None,
            due: None,
            delta: Delta::default(),
            clock,
        }
    }

    /// Goes on behind a stop if the guest was started again. The history must not wait for what may still come.
    #[must_use]
    pub fn past_stops(self) -> Self {
        Replay { passes_stops: true, ..self }
    }

    /// Pauses the machine at the first boundary at or after `position`, once everything that is recorded there has happened.
    pub fn pause_at(&mut self, position: Option<Position>) {
        self.pause_at = position;
    }

    /// What the machine was paused for; asking settles it.
    pub fn due(&mut self) -> Option<Due> {
        let due = self.due.take();
        if let Some(Due::Checkpoint | Due::Digest(..) | Due::Stop) = due {
            self.skip();
        }
        due
    }

    /// The state that the machine is to take over, for [`Due::Delta`]: changes its memory, and gives the rest of it.
    ///
    /// # Errors
    /// If the machine with this memory has no such state.
    pub(crate) fn delta(
        &mut self,
        at: Position,
        memory: &Memory,
    ) -> Result<MachineState, ReplayError<H::Error>> {
        let arrived = self.current.as_ref().map(|current| current.at);
        let state = match self.peek() {
            Some((_, Record::Delta { state, .. })) => state.to_vec(),
            _ => Vec::new(),
        };
        let taken = self.delta.take(at, memory, &state);
        let state = taken.map_err(|source| ReplayError::Delta { at, source })?;
        self.clock = (state.clock, arrived.unwrap_or_else(Instant::now));
        self.skip();
        Ok(state)
    }

    /// The guest has ended by itself at position `at`, with this trail: so must the log. Gives what is still due there if it is
    /// to be compared: its last checkpoint, and digests. Waits for it where it may still come; a log that was cut off has none.
    ///
    /// # Errors
    /// If the recorded guest went on or did something else, or if the log goes on but cannot be read.
    pub fn end(&mut self, at: Position, trail: u64) -> Result<Option<Due>, ReplayError<H::Error>> {
        loop {
            if let Some(mark) = self.current.as_ref().map(|current| current.mark) {
                self.compare_trail(at, trail, &mark)?;
                if mark.watermark > at {
                    return Err(ReplayError::Ended { at });
                }
            }
            match self.peek() {
                Some((missed, _)) if missed < at => return Err(ReplayError::Missed { missed, at }),
                Some((_, Record::Checkpoint | Record::Digest { .. })) if !self.compares => return Ok(None),
                Some((_, Record::Checkpoint)) => {
                    self.skip();
                    return Ok(Some(Due::Checkpoint));
                }
                Some((_, Record::Digest { of, digest })) => {
                    self.skip();
                    return Ok(Some(Due::Digest(of, digest)));
                }
                Some(_) => return Err(ReplayError::Ended { at }),
                None => {
                    if !self.fetch()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// From now on neither digests nor trails are compared.
    pub(crate) fn tolerate(&mut self) {
        self.compares = false;
        self.tolerates = true;
    }

    /// The virtual clock of the machine that begins to follow, as if it had come in now; and how many pages it has.
    pub(crate) fn begin(&mut self, clock: Nanos, pages: usize) {
        self.clock = (clock, Instant::now());
        self.delta = Delta::of(pages);
    }

    /// The machine stands at a checkpoint.
    pub(crate) fn mark(&mut self) {
        self.history.mark();
    }

    /// The machine's state at the last checkpoint was the recorded one.
    pub(crate) fn confirm(&mut self) {
        self.history.confirm();
    }

    /// Where the batches come from.
    pub fn history(&mut self) -> &mut H {
        &mut self.history
    }

    /// How far the replay is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The last time in the log, and when it came in.
    #[must_use]
    pub fn clock(&self) -> (Nanos, Instant) {
        self.clock
    }

    /// What saw the effects.
    #[must_use]
    pub fn into_witness(self) -> W {
        self.witness
    }

    fn skip(&mut self) {
        if let Some((_, after)) = self.current.as_ref().and_then(|current| current.batch.get(self.cursor)) {
            self.cursor = after;
        }
    }

    /// Keeps a page until the delta is whole: the log may end before.
    fn page(&mut self, at: Position) -> Result<(), ReplayError<H::Error>> {
        let stamped = self.current.as_ref().and_then(|current| current.batch.get(self.cursor));
        if let Some((Stamped { what: Record::Page { page, contents }, .. }, after)) = stamped {
            self.delta.add(page, contents).map_err(|source| ReplayError::Delta { at, source })?;
            self.cursor = after;
        }
        Ok(())
    }

    fn peek(&self) -> Option<(Position, Record<'_>)> {
        let (stamped, _) = self.current.as_ref()?.batch.get(self.cursor)?;
        Some((stamped.at, stamped.what))
    }

    fn decide(&mut self, here: &Here) -> Result<Step, ReplayError<H::Error>> {
        let pause = |replay: &mut Self, due| {
            replay.due = Some(due);
            Ok(Step::Answer(Next::Pause))
        };
        let Some(mark) = self.current.as_ref().map(|current| current.mark) else { return Ok(Step::Fetch) };
        self.compare_trail(here.position, here.trail, &mark)?;
        let Some((at, record)) = self.peek() else {
            let complete = here.position < mark.watermark;
            return if complete { self.enter(here) } else { Ok(Step::Fetch) };
        };
        if at < here.position {
            return Err(ReplayError::Missed { missed: at, at: here.position });
        }
        if at > here.position {
            return self.enter(here);
        }
        if !here.boundary {
            return Ok(Step::Answer(Next::Complete));
        }
        match record {
            Record::Event(event) => {
                if let (Event::Clock(now), Some(current)) = (event, &self.current) {
                    self.clock = (now, current.at);
                }
                Ok(Step::Deliver)
            }
            Record::Checkpoint | Record::Digest { .. } if !self.compares => Ok(Step::Skip),
            Record::Page { .. } => Ok(Step::Page),
            Record::Delta { .. } => pause(self, Due::Delta),
            Record::Checkpoint => pause(self, Due::Checkpoint),
            Record::Digest { of, digest } => pause(self, Due::Digest(of, digest)),
            Record::Stop if self.passes_stops => Ok(Step::Stop),
            Record::Stop => pause(self, Due::Stop),
        }
    }

    /// Everything at this position has happened: goes on, unless this is where to pause.
    fn enter(&mut self, here: &Here) -> Result<Step, ReplayError<H::Error>> {
        if self.pause_at.is_some_and(|position| here.position >= position) {
            self.due = Some(Due::Reached);
            return Ok(Step::Answer(Next::Pause));
        }
        Ok(Step::Answer(Next::Enter))
    }

    /// Compares the trail, if the batch with this mark tells it for position `at`.
    fn compare_trail(&self, at: Position, found: u64, mark: &Mark) -> Result<(), ReplayError<H::Error>> {
        let found = found as u32;
        if at == mark.trail_at && found != mark.trail && !self.tolerates {
            return Err(ReplayError::Trail { at, expected: mark.trail, found });
        }
        Ok(())
    }

    /// Waits for the next batch; whether there was one.
    fn fetch(&mut self) -> Result<bool, ReplayError<H::Error>> {
        let Some(arrived) = self.history.next().map_err(ReplayError::History)? else { return Ok(false) };
        self.witness.released(arrived.mark.released);
        self.cursor = Cursor::default();
        if let Some(used) = self.current.replace(arrived) {
            self.history.recycle(used.batch);
        }
        Ok(true)
    }
}

impl<H: History, W: Rewind> Replay<Rewindable<H>, W> {
    /// The machine stands at the last confirmed checkpoint again, at this position, when the last time in the log was `clock`.
    /// Everything is compared again.
    pub(crate) fn rewind(&mut self, to: Position, clock: (Nanos, Instant)) {
        if let Some(current) = self.current.take() {
            self.history.recycle(current.batch);
        }
        self.history.rewind();
        self.witness.rewind(to);
        self.cursor = Cursor::default();
        self.due = None;
        self.delta.forget();
        self.clock = clock;
        (self.compares, self.tolerates) = (true, false);
        self.progress.at(to);
    }
}

impl<H: History, W: Witness> Effects for Replay<H, W> {
    fn effect(&mut self, at: Position, effect: Effect<'_>) {
        self.witness.effect(at, effect);
    }
}

impl<H: History, W: Witness> World for Replay<H, W> {
    type Error = ReplayError<H::Error>;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, Self::Error> {
        self.progress.at(here.position);
        loop {
            match self.decide(here)? {
                Step::Answer(answer) => return Ok(answer),
                Step::Deliver => break,
                Step::Skip => self.skip(),
                Step::Page => self.page(here.position)?,
                Step::Stop => {
                    self.skip();
                    if self.peek().is_none() && !self.fetch()? {
                        self.due = Some(Due::Stop);
                        return Ok(Next::Pause);
                    }
                }
                Step::Fetch => {
                    if !self.fetch()? {
                        self.due = Some(Due::LogEnds);
                        return Ok(Next::Pause);
                    }
                }
            }
        }
        let Some((stamped, after)) = self.current.as_ref().and_then(|current| current.batch.get(self.cursor))
        else {
            unreachable!("a record to deliver is there")
        };
        let Record::Event(event) = stamped.what else { unreachable!("only events are delivered") };
        self.cursor = after;
        Ok(Next::Event(event))
    }
}
