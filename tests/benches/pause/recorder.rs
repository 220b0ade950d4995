//! The recorder's way to a checkpoint and a capture, timed.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use echovisor_event::Effect;
use echovisor_log::Record;
use echovisor_machine::{Machine, cpu::kvm::KvmCpu};
use echovisor_recorder::{
    Cadence, Captured, Ended, Entry, HostClock, Journal, JournalReader, Live, Purpose, Reader, RecordError,
    Recorder, Request, Signals,
    gate::{Gate, Outlet},
    port::Port,
};

use crate::Stop;

/// A guest under the recorder, whose log is read and thrown away.
pub(crate) struct Recorded {
    signals: Arc<Signals>,
    log: JournalReader,
    requests: flume::Sender<Request>,
    guest: JoinHandle<Result<Ended, RecordError>>,
}

/// What the log had next.
enum Read {
    Captured(Captured),
    /// A checkpoint's digest; the guest stood still for so long at the checkpoint, all told.
    Digest(Duration),
    Other,
    /// It is time, or the log has ended.
    Over,
}

/// Where the guest's frames go.
struct Network(Option<Port>);

impl Outlet for Network {
    fn release(&mut self, effect: Effect<'_>) {
        if let (Some(port), Effect::Frame(frame)) = (&self.0, effect) {
            port.send(frame).expect("the network is there");
        }
    }
}

impl Recorded {
    pub(crate) fn start(machine: Machine<KvmCpu>, port: Option<Port>, cadence: Option<Cadence>) -> Recorded {
        let signals = Arc::new(Signals::new().expect("a descriptor"));
        let (journal, log) = Journal::new();
        let gate = Arc::new(Gate::new(Box::new(Network(port.clone()))));
        let live = Live::new(port, gate, journal, signals.clone(), HostClock::starting(), cadence);
        let reader = Reader::start(signals.clone()).expect("a thread");
        let (requests, asked) = flume::bounded(1);
        let guest = thread::spawn(move || Recorder::new(machine, live.greet([7; 32]), asked, reader).run());
        Recorded { signals, log, requests, guest }
    }

    /// Lets the guest run for a while.
    pub(crate) fn run(&self, time: Duration) {
        let until = Some(Instant::now() + time);
        while !matches!(self.read(until), Read::Over) {}
    }

    /// Has the guest's state captured.
    pub(crate) fn capture(&self) -> Stop {
        self.ask(Request::Capture(Purpose::Snapshot));
        let mut captured = None;
        loop {
            match (self.read(None), &captured) {
                (Read::Captured(one), _) => captured = Some(one),
                (Read::Digest(total), Some(one)) => return Stop { total, parts: Some(one.pause) },
                (Read::Over, _) => panic!("the guest runs"),
                _ => {}
            }
        }
    }

    /// The next checkpoint.
    pub(crate) fn checkpoint(&self) -> Stop {
        loop {
            match self.read(None) {
                Read::Digest(total) => return Stop { total, parts: None },
                Read::Over => panic!("the guest runs"),
                Read::Captured(_) | Read::Other => {}
            }
        }
    }

    /// The longest stop until now, for whatever of all that.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos(self.signals.pause_longest.load(Ordering::Relaxed))
    }

    pub(crate) fn stop(self) {
        self.ask(Request::Stop);
        while !matches!(self.read(None), Read::Over) {}
        self.guest.join().expect("the guest's thread").expect("the guest runs");
    }

    fn ask(&self, request: Request) {
        self.requests.send(request).expect("the guest runs");
        self.signals.pause.store(true, Ordering::Release);
        self.signals.bell.ring();
    }

    fn read(&self, until: Option<Instant>) -> Read {
        let entries = self.log.entries();
        let entry = match until {
            Some(until) => entries.recv_deadline(until).ok(),
            None => entries.recv().ok(),
        };
        match entry {
            Some(Entry::Batch(batch, _)) => {
                let digest = batch.records().any(|record| matches!(record.what, Record::Digest { .. }));
                self.log.recycle(batch);
                let total = Duration::from_nanos(self.signals.pause_last.load(Ordering::Relaxed));
                if digest { Read::Digest(total) } else { Read::Other }
            }
            Some(Entry::Capture(captured)) => Read::Captured(*captured),
            Some(Entry::Paused(..)) => panic!("nobody asked for that"),
            None => Read::Over,
        }
    }
}
