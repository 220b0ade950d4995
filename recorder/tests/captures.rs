//! The guest's thread makes captures while its guest lives.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use echovisor_event::{
    Digest, Effect, Position,
    limits::{MEMORY_MIN, PAGE_SIZE},
};
use echovisor_log::Record;
use echovisor_machine::{
    Machine, Memory,
    cpu::scripted::{ScriptedCpu, programs::echo},
    devices::DevicesConfig,
};
use echovisor_recorder::{
    Cadence, Captured, Ended, Entry, HostClock, Journal, JournalReader, Live, Purpose, Reader, RecordError,
    Recorder, Request, Signals,
    gate::{Gate, Outlet},
    port::Port,
};
use echovisor_snapshot::{Image, state_digest};

/// A guest that answers frames, and what surrounds its thread.
struct Guest {
    log: JournalReader,
    signals: Arc<Signals>,
    requests: flume::Sender<Request>,
    network: UnixStream,
    answers: flume::Receiver<()>,
    thread: JoinHandle<Result<Ended, RecordError>>,
    seen: Seen,
}

/// What the log has said so far.
#[derive(Default)]
struct Seen {
    /// The last checkpoint.
    checkpoint: Option<Position>,
    digests: BTreeMap<Position, Digest>,
    watermark: Position,
    stopped: bool,
}

struct Answers(flume::Sender<()>);

impl Outlet for Answers {
    fn release(&mut self, _: Effect<'_>) {
        self.0.send(()).expect("somebody waits");
    }
}

impl Guest {
    fn start(cadence: Option<Cadence>) -> Guest {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net");
        let listener = UnixListener::bind(&path).unwrap();
        let port = Port::stream(&path).unwrap();
        let (network, _) = listener.accept().unwrap();
        let (sender, answers) = flume::unbounded();
        let gate = Arc::new(Gate::new(Box::new(Answers(sender))));
        let (journal, log) = Journal::new();
        let signals = Arc::new(Signals::new().unwrap());
        let live = Live::new(Some(port), gate, journal, signals.clone(), HostClock::starting(), cadence);
        let memory = Memory::new(MEMORY_MIN).unwrap();
        let program = echo(16);
        program.load(&memory);
        let cpu = ScriptedCpu::new(memory.clone(), program.entry());
        let machine = Machine::new(cpu, memory, &DevicesConfig { mac: Some([2, 0, 0, 0, 0, 1]), mtu: 1500 });
        let (requests, asked) = flume::unbounded();
        let reader = Reader::start(signals.clone()).unwrap();
        let thread = thread::spawn(move || Recorder::new(machine, live, asked, reader).run());
        Guest { log, signals, requests, network, answers, thread, seen: Seen::default() }
    }

    fn ask(&self, requests: &[Request]) {
        requests.iter().for_each(|request| self.requests.send(*request).unwrap());
        self.signals.pause.store(true, Ordering::Release);
        self.signals.bell.ring();
    }

    /// Lets the guest write to its memory.
    fn work(&mut self) {
        self.network.write_all(&60_u32.to_be_bytes()).unwrap();
        self.network.write_all(&[7; 60]).unwrap();
        self.answers.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    /// Reads an entry of the log; `None` behind the last one.
    fn read(&mut self) -> Option<Option<Captured>> {
        let entry = match self.log.entries().recv_timeout(Duration::from_secs(60)) {
            Ok(entry) => entry,
            Err(flume::RecvTimeoutError::Disconnected) => return None,
            Err(flume::RecvTimeoutError::Timeout) => panic!("the log goes on or ends"),
        };
        match entry {
            Entry::Batch(batch, mark) => {
                for record in batch.records() {
                    match record.what {
                        Record::Checkpoint => self.seen.checkpoint = Some(record.at),
                        Record::Digest { of, digest } => drop(self.seen.digests.insert(of, digest)),
                        Record::Stop => self.seen.stopped = true,
                        Record::Event(_) | Record::Page { .. } | Record::Delta { .. } => {}
                    }
                }
                self.seen.watermark = mark.watermark;
                Some(None)
            }
            Entry::Capture(captured) => {
                let at = captured.capture.position();
                assert_eq!((self.seen.checkpoint, self.seen.watermark), (Some(at), at), "right behind it");
                Some(Some(*captured))
            }
            Entry::Paused(..) => panic!("nobody asked for that"),
        }
    }

    /// The next capture, and the digest at its checkpoint, which comes later.
    fn capture(&mut self) -> (Captured, Digest) {
        let captured = loop {
            if let Some(captured) = self.read().expect("a capture") {
                break captured;
            }
        };
        loop {
            if let Some(digest) = self.seen.digests.get(&captured.capture.position()) {
                return (captured, *digest);
            }
            assert!(
                self.read().expect("its digest").is_none(),
                "no capture before the digest of the last one"
            );
        }
    }

    fn stop(self) {
        self.ask(&[Request::Stop]);
        assert!(matches!(self.thread.join().unwrap(), Ok(Ended::Stopped)));
    }
}

/// Copies what a capture holds.
fn apply(captured: &Captured, memory: &Memory) {
    let mut page = [0; PAGE_SIZE];
    for index in captured.capture.pages().iter() {
        captured.capture.read_page(index, &mut page);
        memory.write_page(index, &page);
    }
}

#[test]
fn a_capture_is_the_state_at_its_checkpoint() {
    let mut guest = Guest::start(None);
    let memory = Memory::new(MEMORY_MIN).unwrap();
    for round in 0..3 {
        guest.work();
        guest.ask(&[Request::Capture(Purpose::Snapshot), Request::Capture(Purpose::Join)]);

        let (snapshot, digest) = guest.capture();
        let capture = &snapshot.capture;
        assert_eq!((snapshot.purpose, capture.is_complete()), (Purpose::Snapshot, round == 0));
        apply(&snapshot, &memory);
        assert_eq!(state_digest(&memory, capture.state()), digest, "made from the one before");

        let (join, digest) = guest.capture();
        let capture = &join.capture;
        assert_eq!((join.purpose, capture.is_complete()), (Purpose::Join, true));
        assert_eq!(capture.page_digests().state_digest(capture.state()), digest);
        Image::of(capture).fill(&Memory::new(MEMORY_MIN).unwrap()).expect("the whole state");
    }
    guest.stop();
}

#[test]
fn what_was_asked_for_before_the_stop_is_made_at_it() {
    let mut guest = Guest::start(Some(Cadence::Busy(Duration::from_secs(3600))));
    guest.work();
    let snapshot = Request::Capture(Purpose::Snapshot);
    guest.ask(&[snapshot, Request::Capture(Purpose::Join), Request::Stop]);
    let (captured, digest) = guest.capture();
    assert_eq!(captured.capture.page_digests().state_digest(captured.capture.state()), digest);
    assert_eq!(guest.capture().0.purpose, Purpose::Join);
    while guest.read().is_some() {}
    assert!(guest.seen.stopped, "the log ends with a stop");
    assert_eq!(guest.seen.watermark, captured.capture.position());
    assert!(matches!(guest.thread.join().unwrap(), Ok(Ended::Stopped)));
}

/// Also those at which nothing is captured, whose copies serve the next ones.
#[test]
fn checkpoints_come_with_the_time_in_which_the_guest_runs() {
    let mut guest = Guest::start(Some(Cadence::Busy(Duration::from_nanos(1))));
    for count in 1..=8 {
        guest.work();
        while guest.seen.digests.len() < count {
            assert!(guest.read().expect("a checkpoint").is_none(), "nobody asked for a capture");
        }
    }
    guest.ask(&[Request::Capture(Purpose::Join)]);
    let (captured, digest) = guest.capture();
    assert_eq!(captured.capture.page_digests().state_digest(captured.capture.state()), digest);
    guest.stop();
}
