//! The world of a primary: asks the host, stamps, logs and answers.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use echovisor_event::{
    Effect, Event, Nanos, Position,
    limits::{BURST_MAX, BYTES_MAX, FRAME_MAX},
};
use echovisor_log::{Cause, PushError};
use echovisor_machine::{Effects, Here, Next, World};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    cadence::{Cadence, Due},
    clock::HostClock,
    gate::Gate,
    journal::Journal,
    pace::Pace,
    policy::Policy,
    port::Port,
    signals::Signals,
    ticker::Ticker,
};

/// A guest that does not idle sees its clock move this often, where it makes exits at all.
const BUSY_TICK: Duration = Duration::from_millis(10);

/// Longest wait in one system call; the conversions to its argument are safe up to here.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// How soon somebody who asks is heard while the guest stands still for an output to leave.
const ASKED: Duration = Duration::from_millis(5);

/// Why the live world has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The network's other side is gone.
    #[error("the guest's network: {0}")]
    Port(io::Error),
    /// Waiting for input failed.
    #[error("waiting for input: {0}")]
    Wait(io::Error),
    /// A record did not fit into the log.
    #[error("writing the log: {0}")]
    Log(#[from] PushError),
}

/// The world of a primary.
pub struct Live {
    port: Option<Port>,
    console: Option<flume::Receiver<Vec<u8>>>,
    gate: Arc<Gate>,
    journal: Journal,
    signals: Arc<Signals>,
    clock: HostClock,
    pace: Pace,
    /// The guest stands at a position of no exit of its own, where everything that is there is delivered.
    jumped: bool,
    /// `None` for no checkpoints.
    cadence: Option<Cadence>,
    due: Due,
    /// What has been done at the position where the machine stands.
    here: Progress,
    /// Since when the machine is to pause.
    pausing: Option<Instant>,
    /// What the guest is told before it is entered first.
    greeting: Option<Greeting>,
    buffer: Box<[u8; FRAME_MAX]>,
    /// Console bytes that came in and are not delivered yet.
    typed: Vec<u8>,
}

#[derive(Default)]
struct Progress {
    position: Option<Position>,
    /// The clock was told.
    told: bool,
    /// A frame was read into the buffer but not delivered.
    frame: Option<usize>,
    frames: usize,
    /// Console bytes were delivered: once at a position, so that its records fit in a batch.
    typed: bool,
}

/// The events before the guest is entered first, in order.
enum Greeting {
    Wall,
    Seed([u8; 32]),
}

impl Live {
    /// The world of a guest on this host, with checkpoints at a `cadence`.
    #[must_use]
    pub fn new(
        port: Option<Port>,
        gate: Arc<Gate>,
        journal: Journal,
        signals: Arc<Signals>,
        clock: HostClock,
        cadence: Option<Cadence>,
    ) -> Live {
        let due = Due::after(cadence, Position::BOOT, 0);
        Live {
            port,
            console: None,
            gate,
            journal,
            signals,
            clock,
            pace: Pace::default(),
            jumped: false,
            cadence,
            due,
            here: Progress::default(),
            pausing: None,
            greeting: None,
            buffer: Box::new([0; FRAME_MAX]),
            typed: Vec::new(),
        }
    }

    /// Tells a guest that boots the wall time, and gives it `seed`.
    #[must_use]
    pub fn greet(mut self, seed: [u8; 32]) -> Live {
        self.greeting = Some(Greeting::Seed(seed));
        self
    }

    /// Tells a guest the wall time that has stood still for longer than its clock says.
    #[must_use]
    pub fn tell_wall(mut self) -> Live {
        self.greeting = Some(Greeting::Wall);
        self
    }

    /// Writes the log by this policy, with the guest called out by `ticker` where that needs it.
    #[must_use]
    pub fn under(mut self, policy: Policy, ticker: Ticker) -> Live {
        self.journal.omit_events(!policy.logs_events());
        self.pace = Pace::new(policy, ticker);
        self
    }

    /// Gives the guest what is typed on its console; ring the bell after sending.
    #[must_use]
    pub fn console(mut self, bytes: flume::Receiver<Vec<u8>>) -> Live {
        self.console = Some(bytes);
        self
    }

    /// The log's writing end.
    pub fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The gate that effects pass.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What other threads told.
    #[must_use]
    pub fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// Whether a checkpoint is due at `position`.
    #[must_use]
    pub fn checkpoint_due(&self, position: Position) -> bool {
        let due = match self.due {
            Due::Never => false,
            Due::At(due) => position >= due,
            Due::Busy(due) => self.signals.busy.load(Ordering::Relaxed) >= due,
        };
        due && self.journal.is_open()
    }

    /// Whether a checkpoint is to be made at the position where it is due, and not when it costs the guest least.
    #[must_use]
    pub(crate) fn checkpoints_at_once(&self) -> bool {
        matches!(self.cadence, Some(Cadence::Positions(_)))
    }

    /// A checkpoint is being prepared: none is due before that is [done](Live::checkpoint_done).
    pub(crate) fn checkpoint_begun(&mut self) {
        self.due = Due::Never;
    }

    /// The next checkpoint is due a cadence behind `position`, where the last one was made.
    pub fn checkpoint_done(&mut self, position: Position) {
        self.due = Due::after(self.cadence, position, self.signals.busy.load(Ordering::Relaxed));
    }

    /// When deltas are due.
    pub(crate) fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// Why a delta is due where the guest stands, if one is.
    pub(crate) fn delta_due(&self, position: Position) -> Option<Cause> {
        self.pace.due(self.lags(position))
    }

    /// Whether the machine's state at `position` is another one than the log's last delta leads to.
    pub(crate) fn lags(&self, position: Position) -> bool {
        self.pace.is_shipping() && (self.journal.has_omitted() || position > self.journal.watermark())
    }

    /// The guest was called out, and stands where it made no exit.
    pub(crate) fn jumped(&mut self) {
        self.jumped = true;
    }

    /// How long the machine took to pause: to complete an instruction.
    pub(crate) fn paused(&mut self) -> Duration {
        self.pausing.take().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Hands over what the journal holds.
    pub fn flush(&mut self) {
        let released = self.gate.released(self.journal.watermark());
        self.journal.flush(released);
    }

    fn flush_due(&self) -> Option<Instant> {
        self.journal.due(self.gate.awaits_log())
    }

    fn arrive(&mut self, here: &Here) {
        if self.here.position != Some(here.position) {
            let frame = self.here.frame.take();
            self.here = Progress { position: Some(here.position), frame, ..Progress::default() };
            if !self.pace.is_shipping() {
                self.journal.arrived(here.position, here.trail);
            }
            self.signals.position.store(here.position.0, Ordering::Relaxed);
            if let Some(ran) = self.pace.leave() {
                self.signals.busy.fetch_add(ran.as_nanos() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Waits until the guest's sleep is over, by input or by its deadline. Whether the machine should pause instead.
    fn wait(&mut self, here: &Here, deadline: Nanos) -> Result<bool, LiveError> {
        loop {
            if self.wants_pause(here) {
                return Ok(true);
            }
            let now = self.clock.now();
            if now >= deadline || self.take_frame(here)? || self.take_console(here) {
                return Ok(false);
            }
            // An effect waits at the gate for the log behind it, and the guest, which has nothing to do, will not add to it.
            if self.journal.is_dirty() && self.gate.holds() {
                self.flush();
            }
            let mut timeout = deadline.since(now);
            if let Some(left) = self.pace.epoch_left(self.lags(here.position)) {
                timeout = timeout.min(left);
            }
            if let Some(due) = self.flush_due() {
                let due = due.saturating_duration_since(Instant::now());
                if due.is_zero() {
                    self.flush();
                    continue;
                }
                timeout = timeout.min(due);
            }
            self.sleep(here.frames_wanted > 0, timeout)?;
        }
    }

    /// Blocks until there is input, the bell rings, or `timeout` has passed.
    fn sleep(&self, network: bool, timeout: Duration) -> Result<(), LiveError> {
        // Whoever sleeps longer is woken and sleeps again.
        let timeout = timeout.min(SLEEP_MAX);
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let bell = PollFd::from_borrowed_fd(self.signals.bell.as_fd(), PollFlags::IN);
        let port = self.port.as_ref().filter(|_| network);
        // Where there is no network the bell is watched twice, which costs nothing.
        let port = port.map_or(bell.clone(), |port| PollFd::from_borrowed_fd(port.as_fd(), PollFlags::IN));
        let mut watched = [bell, port];
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(LiveError::Wait(error.into())),
        }
        if !watched[0].revents().is_empty() {
            self.signals.bell.hush();
        }
        Ok(())
    }

    /// Reads the next frame into the buffer, if the guest wants one and one is there.
    fn take_frame(&mut self, here: &Here) -> Result<bool, LiveError> {
        if self.here.frame.is_some() {
            return Ok(true);
        }
        let Some(port) =
            self.port.as_ref().filter(|_| here.frames_wanted > 0 && self.here.frames < BURST_MAX)
        else {
            return Ok(false);
        };
        self.here.frame = port.receive(&mut self.buffer[..]).map_err(LiveError::Port)?;
        Ok(self.here.frame.is_some())
    }

    /// Collects what was typed. Whether the guest can be given some of it here.
    fn take_console(&mut self, here: &Here) -> bool {
        if let Some(console) = &self.console {
            while self.typed.len() < BYTES_MAX
                && let Ok(bytes) = console.try_recv()
            {
                self.typed.extend(bytes);
            }
        }
        !self.typed.is_empty() && here.console_wanted > 0 && !self.here.typed
    }

    /// Logs the time and tells the guest.
    fn clock(&mut self, here: &Here) -> Result<Next<'_>, LiveError> {
        self.here.told = true;
        let event = Event::Clock(self.clock.now().max(here.clock));
        self.journal.event(here.position, event)?;
        Ok(Next::Event(event))
    }

    /// What the guest is told first.
    fn greeting(&mut self, here: &Here, greeting: Greeting) -> Result<Next<'_>, LiveError> {
        match greeting {
            Greeting::Seed(seed) => {
                self.greeting = Some(Greeting::Wall);
                self.buffer[..seed.len()].copy_from_slice(&seed);
                let event = Event::Entropy(&self.buffer[..seed.len()]);
                self.journal.event(here.position, event)?;
                Ok(Next::Event(event))
            }
            Greeting::Wall => {
                let event = Event::Wall(self.clock.wall());
                self.journal.event(here.position, event)?;
                Ok(Next::Event(event))
            }
        }
    }

    /// The guest idles: waits, then tells it the time and what has come in.
    fn idle(&mut self, here: &Here, deadline: Nanos) -> Result<Next<'_>, LiveError> {
        if !self.here.told {
            return if self.wait(here, deadline)? { Ok(Next::Pause) } else { self.clock(here) };
        }
        if self.take_frame(here)?
            && let Some(length) = self.here.frame.take()
        {
            self.here.frames += 1;
            self.signals.received.fetch_add(length as u64, Ordering::Relaxed);
            let event = Event::Frame(&self.buffer[..length]);
            self.journal.event(here.position, event)?;
            return Ok(Next::Event(event));
        }
        if self.take_console(here) {
            self.here.typed = true;
            let length = self.typed.len().min(here.console_wanted).min(BYTES_MAX);
            self.buffer[..length].copy_from_slice(&self.typed[..length]);
            self.typed.drain(..length);
            let event = Event::Console(&self.buffer[..length]);
            self.journal.event(here.position, event)?;
            return Ok(Next::Event(event));
        }
        Ok(self.enter())
    }

    fn enter(&mut self) -> Next<'_> {
        let now = Instant::now();
        self.pace.enter(now, std::mem::take(&mut self.jumped));
        if self.journal.is_full() || self.flush_due().is_some_and(|due| due <= now) {
            self.flush();
        }
        Next::Enter
    }

    /// Whether the guest is to stand still until somebody says otherwise.
    fn waits(&self) -> bool {
        self.signals.throttle.load(Ordering::Acquire) || self.signals.hold.load(Ordering::Acquire)
    }

    /// Whether it is to stand still until what it has said has left.
    fn waits_for_release(&self) -> bool {
        self.pace.wait_for_release() && self.gate.holds()
    }

    /// Answers the bell; waits while the secondary is behind. Whether the machine should pause.
    fn wants_pause(&mut self, here: &Here) -> bool {
        while self.signals.bell.is_rung() || self.waits() || self.waits_for_release() {
            self.signals.bell.answer();
            let waits = self.waits();
            if self.signals.pause.load(Ordering::Acquire) || !(waits || self.waits_for_release()) {
                break;
            }
            if self.journal.is_dirty() {
                self.flush();
            }
            if waits {
                let _ = self.sleep(false, Duration::from_millis(100));
            } else {
                self.gate.wait_until_empty(ASKED);
            }
        }
        let wanted = self.signals.pause.load(Ordering::Acquire)
            || self.delta_due(here.position).is_some()
            || self.checkpoint_due(here.position);
        if wanted {
            self.pausing.get_or_insert_with(Instant::now);
        }
        wanted
    }
}

impl Effects for Live {
    fn effect(&mut self, at: Position, effect: Effect<'_>) {
        self.gate.pass(at, effect);
        self.pace.output();
        if self.pace.policy().logs_events() {
            self.journal.touch();
        }
    }
}

impl World for Live {
    type Error = LiveError;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, LiveError> {
        self.arrive(here);
        if self.wants_pause(here) {
            return Ok(Next::Pause);
        }
        if let Some(greeting) = self.greeting.take() {
            return self.greeting(here, greeting);
        }
        match here.idle {
            Some(deadline) => self.idle(here, deadline),
            None if self.jumped => self.idle(here, Nanos::ZERO),
            None if self.here.told || self.clock.now().since(here.clock) < BUSY_TICK => Ok(self.enter()),
            None if here.boundary => self.clock(here),
            None => Ok(Next::Complete),
        }
    }
}
