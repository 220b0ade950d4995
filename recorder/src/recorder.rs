//! The primary's guest thread: runs the machine in the live world and does what is due at its boundaries.

use std::{collections::VecDeque, sync::atomic::Ordering};

use echovisor_event::{Digest, Position};
use echovisor_log::Record;
use echovisor_machine::{
    Machine, RunError, Stop,
    boot::Crash,
    cpu::{Cpu, CpuError},
};
use echovisor_snapshot::{Image, RunningDigest};

use crate::live::{Live, LiveError};

/// What is asked of the guest's thread. Send it, then ring with [`Signals::pause`](crate::Signals::pause) set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Hand the whole state to the journal, for a secondary that joins.
    Image,
    /// Stand still behind a checkpoint, until [`Request::Resume`], and tell the journal with this number.
    Pause(u64),
    /// Go on.
    Resume,
    /// End the log here, on purpose.
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
    machine: Machine<C>,
    live: Live,
    requests: flume::Receiver<Request>,
    /// What was asked for while the guest stood still.
    deferred: VecDeque<Request>,
    /// From the first checkpoint on: account of the pages that change is not kept for nobody.
    digest: Option<RunningDigest>,
}

impl<C: Cpu> Recorder<C> {
    /// Runs `machine` in `live`, with requests from other threads.
    pub fn new(machine: Machine<C>, live: Live, requests: flume::Receiver<Request>) -> Recorder<C> {
        Recorder { machine, live, requests, deferred: VecDeque::new(), digest: None }
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

    fn run_to_end(&mut self) -> Result<Ended, RecordError> {
        loop {
            match self.machine.run(&mut self.live)? {
                Stop::Paused => {
                    if self.boundary()? {
                        return Ok(Ended::Stopped);
                    }
                }
                Stop::Kicked => {}
                Stop::PoweredOff(code) => return self.end().map(|()| Ended::PoweredOff(code)),
                Stop::Crashed(crash) => return self.end().map(|()| Ended::Crashed(crash)),
            }
        }
    }

    /// Does what is due; whether that ends the run.
    fn boundary(&mut self) -> Result<bool, RecordError> {
        let at = self.machine.position();
        if self.live.checkpoint_due(at) {
            self.checkpoint()?;
        }
        self.live.signals().pause.store(false, Ordering::Release);
        while let Some(request) = self.deferred.pop_front().or_else(|| self.requests.try_recv().ok()) {
            match request {
                Request::Image => self.image()?,
                Request::Pause(number) => {
                    if self.stand_still(number)? {
                        return Ok(true);
                    }
                }
                // What it ends is over.
                Request::Resume => {}
                Request::Stop => {
                    self.checkpoint()?;
                    self.write(at, Record::Stop)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Waits until the guest may go on. Whether the node is gone instead: then nobody wants anything of the guest any more.
    fn stand_still(&mut self, number: u64) -> Result<bool, RecordError> {
        if let Some(digest) = self.checkpoint()? {
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

    /// The guest has ended by itself: its last state is a checkpoint.
    fn end(&mut self) -> Result<(), RecordError> {
        self.machine.settle()?;
        self.checkpoint()?;
        Ok(())
    }

    /// The state's digest, if there is a log for it.
    fn checkpoint(&mut self) -> Result<Option<Digest>, RecordError> {
        let at = self.machine.position();
        let mut taken = None;
        if self.live.journal().is_open() {
            let running = match &mut self.digest {
                Some(running) => running,
                none => none.insert(RunningDigest::new(&mut self.machine)?),
            };
            let digest = running.take(&mut self.machine)?;
            self.live.journal().arrived(at, self.machine.trail().0);
            self.write(at, Record::Checkpoint(digest))?;
            taken = Some(digest);
        }
        self.live.checkpoint_done(at);
        Ok(taken)
    }

    /// Hands the state over; the log behind it begins with what happens next.
    fn image(&mut self) -> Result<(), CpuError> {
        let image = Image::capture(self.machine.memory(), self.machine.save()?);
        self.live.flush();
        self.live.journal().image(image);
        Ok(())
    }

    fn write(&mut self, at: Position, record: Record<'_>) -> Result<(), RecordError> {
        let written = self.live.journal().push(at, record);
        // A checkpoint ends its segment, and nothing follows a stop.
        self.live.flush();
        written.map_err(|error| RunError::World(error.into()))
    }
}
