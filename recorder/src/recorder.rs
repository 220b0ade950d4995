//! The primary's guest thread: runs the machine in the live world and does what is due at its boundaries.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use echovisor_event::Digest;
use echovisor_log::Record;
use echovisor_machine::{Consumer, Machine, Memory, RunError, Stop, boot::Crash, cpu::Cpu};

use crate::{
    live::{Live, LiveError},
    reader::Reader,
    rounds::{Account, Captured, Finished, Pause, Purpose, Reading, Round, Undigested},
};

/// What is asked of the guest's thread. Send it, then ring with [`Signals::pause`](crate::Signals::pause) set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Hand the state to the journal, at a checkpoint that is made for it. Captures come in the order of their requests.
    Capture(Purpose),
    /// Stand still behind a checkpoint, until [`Request::Resume`], and tell the journal with this number.
    Pause(u64),
    /// Go on.
    Resume,
    /// End the log here, on purpose. Captures that were asked for before are made here.
    Stop,
}

/// How a guest's run ended.
#[derive(Debug)]
pub enum Ended {
    /// By [`Request::Stop`].
    Stopped,
    /// The guest powered itself off.
    PoweredOff(u32),
    /// An exception ended the guest.
    Crashed(Box<Crash>),
}

/// Why a guest could not go on.
pub type RecordError = RunError<LiveError>;

/// A machine in the live world.
pub struct Recorder<C> {
    pub(crate) machine: Machine<C>,
    pub(crate) live: Live,
    requests: flume::Receiver<Request>,
    /// What was asked for while the guest stood still.
    deferred: VecDeque<Request>,
    reader: Reader,
    /// From the first checkpoint on: account of the pages that change is not kept for nobody. The reader has it while
    /// `reading`.
    account: Option<Account>,
    reading: bool,
    /// Captures that are asked for.
    wanted: VecDeque<Purpose>,
    /// Knows what has changed since the last snapshot.
    keeper: Option<Consumer>,
    /// Knows what has changed since the last delta or checkpoint: what one lacks who stands there. `None` while nobody does.
    pub(crate) changed: Option<Consumer>,
}

impl<C: Cpu> Recorder<C> {
    /// Runs `machine` in `live`, with requests from other threads.
    pub fn new(
        machine: Machine<C>,
        live: Live,
        requests: flume::Receiver<Request>,
        reader: Reader,
    ) -> Recorder<C> {
        Recorder {
            machine,
            live,
            requests,
            deferred: VecDeque::new(),
            reader,
            account: None,
            reading: false,
            wanted: VecDeque::new(),
            keeper: None,
            changed: None,
        }
    }

    /// Runs the guest until it ends. What the journal holds is handed over then.
    ///
    /// # Errors
    /// If the machine or its world fails; the log up to there is handed over.
    pub fn run(&mut self) -> Result<Ended, RecordError> {
        let ended = self.run_to_end();
        if self.live.journal().is_dirty() {
            self.live.flush();
        }
        ended
    }

    /// Gives the machine up, and the log's writing end. What is left is its memory, in which nothing runs any more.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        self.machine.memory().clone()
    }

    fn run_to_end(&mut self) -> Result<Ended, RecordError> {
        self.begin_log()?;
        loop {
            match self.machine.run(&mut self.live)? {
                Stop::Paused => {
                    if self.boundary()? {
                        return Ok(Ended::Stopped);
                    }
                }
                Stop::Kicked => self.called_out()?,
                Stop::PoweredOff(code) => return self.end().map(|()| Ended::PoweredOff(code)),
                Stop::Crashed(crash) => return self.end().map(|()| Ended::Crashed(crash)),
            }
        }
    }

    /// Does what is due; whether that ends the run.
    fn boundary(&mut self) -> Result<bool, RecordError> {
        let begun = Instant::now();
        let complete = self.live.paused();
        self.live.signals().pause.store(false, Ordering::Release);
        while let Some(request) = self.deferred.pop_front().or_else(|| self.requests.try_recv().ok()) {
            match request {
                Request::Capture(purpose) => self.wanted.push_back(purpose),
                Request::Pause(number) => {
                    if self.stand_still(number)? {
                        return Ok(true);
                    }
                }
                // What it ends is over.
                Request::Resume => {}
                Request::Stop => return self.stop().map(|()| true),
            }
        }
        if let Some(cause) = self.live.delta_due(self.machine.position()) {
            self.delta(cause)?;
        }
        let mut noted = false;
        match self.reader.done() {
            Some(Reading::Round(round)) => self.go_on(round, complete)?,
            Some(Reading::Digest(checkpoint)) => {
                noted = true;
                self.note(checkpoint)?;
            }
            None => {}
        }
        if !self.reading {
            self.begin()?;
        }
        // To write down a digest is not what the guest stood still for.
        if !noted || self.reading {
            self.live.signals().paused(complete + begun.elapsed());
        }
        Ok(false)
    }

    /// Waits until the guest may go on. Whether the node is gone instead: then nobody wants anything of the guest any more.
    fn stand_still(&mut self, number: u64) -> Result<bool, RecordError> {
        if let Some(digest) = self.checkpoint_here()? {
            self.live.journal().paused(number, self.machine.position(), digest);
        }
        loop {
            match self.requests.recv() {
                Ok(Request::Resume) => return Ok(false),
                // Whoever may go on with the guest has the log up to here, so nothing may be added to it.
                Ok(other) => self.deferred.push_back(other),
                Err(_) => return Ok(true),
            }
        }
    }

    /// Begins what is due, unless nobody reads the log any more.
    fn begin(&mut self) -> Result<(), RecordError> {
        let at = self.machine.position();
        let due = self.live.checkpoint_due(at);
        if !self.live.journal().is_open() {
            self.wanted.clear();
        } else if due && self.live.checkpoints_at_once() && self.wanted.is_empty() {
            self.checkpoint_here()?;
        } else if due || !self.wanted.is_empty() {
            let round = self.round()?;
            self.read(Reading::Round(round));
            self.live.checkpoint_begun();
        }
        Ok(())
    }

    /// What leads to the next checkpoint, and to the next capture that is asked for.
    fn round(&mut self) -> Result<Round, RecordError> {
        let purpose = self.wanted.pop_front();
        Ok(Round::begin(&mut self.machine, self.account.take(), purpose, &mut self.keeper)?)
    }

    /// A round is done: is another one of use?
    fn go_on(&mut self, mut round: Round, complete: Duration) -> Result<(), RecordError> {
        let mut pause = Pause { complete, ..Pause::default() };
        if round.is_near(&mut self.machine, &mut pause)? {
            let (checkpoint, captured) = self.finish(round, pause)?;
            self.capture(captured);
            self.read(Reading::Digest(checkpoint));
        } else {
            self.read(Reading::Round(round));
        }
        Ok(())
    }

    fn read(&mut self, reading: Reading) {
        self.reader.run(reading);
        self.reading = true;
    }

    /// Ends a round that is done, with a checkpoint here, whose digest is not known yet.
    fn finish(&mut self, round: Round, pause: Pause) -> Result<(Undigested, Option<Captured>), RecordError> {
        self.reach()?;
        let Finished { checkpoint, captured, keeper } = round.finish(&mut self.machine, pause)?;
        if keeper.is_some() {
            self.keeper = keeper;
        }
        self.live.checkpoint_done(self.machine.position());
        self.write(Record::Checkpoint)?;
        // It ends its segment.
        self.live.flush();
        Ok((checkpoint, captured))
    }

    fn capture(&mut self, captured: Option<Captured>) {
        if let Some(captured) = captured {
            self.live.journal().capture(captured);
        }
    }

    /// Ends a round that is done, however much it lacks, and waits for the digest.
    fn finish_here(&mut self, mut round: Round) -> Result<Option<Digest>, RecordError> {
        let mut pause = Pause::default();
        round.is_near(&mut self.machine, &mut pause)?;
        let (mut checkpoint, mut captured) = self.finish(round, pause)?;
        let begun = Instant::now();
        checkpoint.run();
        if let Some(captured) = &mut captured {
            captured.pause.hash = begun.elapsed();
        }
        self.capture(captured);
        self.note(checkpoint)
    }

    /// Writes down the digest of a checkpoint, now that it is known. Gives it, if there is a log for it.
    fn note(&mut self, checkpoint: Undigested) -> Result<Option<Digest>, RecordError> {
        let (of, digest, account) = checkpoint.finish();
        (self.account, self.reading) = (Some(account), false);
        self.write(Record::Digest { of, digest })?;
        Ok(self.live.journal().is_open().then_some(digest))
    }

    /// The run ends here. Everything that was asked for before is done here, too.
    fn stop(&mut self) -> Result<(), RecordError> {
        let prepared = self.prepared()?;
        if let Some(round) = prepared {
            self.finish_here(round)?;
        } else if self.wanted.is_empty() {
            self.checkpoint_here()?;
        }
        while self.live.journal().is_open() && !self.wanted.is_empty() {
            let mut round = self.round()?;
            round.run();
            self.finish_here(round)?;
        }
        self.write(Record::Stop)?;
        self.live.flush();
        Ok(())
    }

    /// The guest has ended by itself: its last state is a checkpoint.
    fn end(&mut self) -> Result<(), RecordError> {
        self.machine.settle()?;
        self.checkpoint_here()?;
        Ok(())
    }

    /// The checkpoint that is being prepared, if one is. Waits for the reader, and for the digest of the last one.
    fn prepared(&mut self) -> Result<Option<Round>, RecordError> {
        if !self.reading {
            return Ok(None);
        }
        match self.reader.wait() {
            Reading::Round(round) => {
                self.reading = false;
                Ok(Some(round))
            }
            Reading::Digest(checkpoint) => self.note(checkpoint).map(|_| None),
        }
    }

    /// Makes a checkpoint at this position, the one that is being prepared or a new one, and hands over the log up to its digest.
    /// That is given, if there is a log for it.
    fn checkpoint_here(&mut self) -> Result<Option<Digest>, RecordError> {
        let digest = match self.prepared()? {
            Some(round) => self.finish_here(round)?,
            None if self.live.journal().is_open() => Some(self.checkpoint_at_once()?),
            None => None,
        };
        self.live.flush();
        Ok(digest)
    }

    fn checkpoint_at_once(&mut self) -> Result<Digest, RecordError> {
        self.reach()?;
        let account = match &mut self.account {
            Some(account) => account,
            none => none.insert(Account::new(&mut self.machine)?),
        };
        let digest = account.take(&mut self.machine)?;
        let of = self.machine.position();
        self.live.checkpoint_done(of);
        self.write(Record::Checkpoint)?;
        // It ends its segment.
        self.live.flush();
        self.write(Record::Digest { of, digest })?;
        Ok(digest)
    }

    /// Writes down what is at this position.
    fn write(&mut self, record: Record<'_>) -> Result<(), RecordError> {
        let (at, trail) = (self.machine.position(), self.machine.trail().0);
        let shipping = self.live.pace().is_shipping();
        let journal = self.live.journal();
        if !shipping {
            journal.arrived(at, trail);
        }
        journal.push(journal.watermark(), record).map_err(|error| RunError::World(error.into()))
    }
}
