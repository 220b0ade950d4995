//! The live world, asked as the machine asks it: when a guest wakes, what it is given, what is logged.

use std::{
    io::Write,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use echovisor_event::{
    Effect, Event, Nanos, Position,
    limits::{BURST_MAX, MEMORY_MIN},
};
use echovisor_log::Record;
use echovisor_machine::{
    Effects, Here, Machine, Memory, Next, Stop, World,
    cpu::scripted::{
        Program, ScriptedCpu,
        programs::{echo, powers_off},
    },
    devices::DevicesConfig,
};
use echovisor_recorder::{
    Cadence, Ended, Entry, HostClock, Journal, JournalReader, Live, Reader, Recorder, Request, Signals,
    gate::{Gate, Outlet},
    port::Port,
};

/// A live world with everything around it.
struct Bench {
    live: Live,
    reader: JournalReader,
    signals: Arc<Signals>,
    typed: flume::Sender<Vec<u8>>,
    effects: flume::Receiver<Vec<u8>>,
}

struct Sink(flume::Sender<Vec<u8>>);

impl Outlet for Sink {
    fn release(&mut self, effect: Effect<'_>) {
        let bytes = match effect {
            Effect::Frame(bytes) | Effect::Console(bytes) => bytes.to_vec(),
            Effect::PowerOff(code) => code.to_le_bytes().to_vec(),
        };
        self.0.send(bytes).unwrap();
    }
}

fn bench(port: Option<Port>, cadence: Option<Cadence>) -> Bench {
    let (sink, effects) = flume::unbounded();
    let gate = Arc::new(Gate::new(Box::new(Sink(sink))));
    let (journal, reader) = Journal::new();
    let signals = Arc::new(Signals::new().unwrap());
    let (typed, bytes) = flume::unbounded();
    let live = Live::new(port, gate, journal, signals.clone(), HostClock::starting(), cadence).console(bytes);
    Bench { live, reader, signals, typed, effects }
}

/// A frame socket: the port, and its other end.
fn network() -> (Port, UnixStream) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net");
    let listener = UnixListener::bind(&path).unwrap();
    let port = Port::stream(&path).unwrap();
    (port, listener.accept().unwrap().0)
}

fn send(socket: &mut UnixStream, frame: &[u8]) {
    socket.write_all(&[&(frame.len() as u32).to_be_bytes(), frame].concat()).unwrap();
}

fn here(position: u64, idle: Option<Nanos>) -> Here {
    Here {
        position: Position(position),
        trail: 0,
        clock: Nanos::ZERO,
        idle,
        boundary: true,
        frames_wanted: 0,
        console_wanted: 64,
    }
}

fn clock(next: Next<'_>) -> Nanos {
    match next {
        Next::Event(Event::Clock(now)) => now,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sleep_ends_at_its_deadline_and_not_before() {
    let mut bench = bench(None, None);
    for deadline in [Nanos::ZERO, Nanos(1), Nanos(30_000_000)] {
        let here = here(deadline.0 + 1, Some(deadline));
        assert!(clock(bench.live.next(&here).unwrap()) >= deadline);
        assert!(matches!(bench.live.next(&here).unwrap(), Next::Enter), "there is nothing else");
    }
}

#[test]
fn who_rings_without_a_reason_does_not_wake_the_guest() {
    let mut bench = bench(None, None);
    let (signals, typed) = (bench.signals.clone(), bench.typed.clone());
    let ringer = thread::spawn(move || {
        signals.bell.ring();
        while signals.bell.is_rung() {
            thread::yield_now();
        }
        typed.send(b"x".to_vec()).unwrap();
        signals.bell.ring();
    });
    let here = here(1, Some(Nanos::NEVER));
    clock(bench.live.next(&here).unwrap());
    ringer.join().unwrap();
    // Had the first ring woken the guest, nothing would have been typed yet.
    assert!(matches!(bench.live.next(&here).unwrap(), Next::Event(Event::Console(b"x"))));
}

#[test]
fn input_that_the_guest_cannot_take_does_not_keep_it_awake() {
    let mut bench = bench(None, None);
    bench.typed.send(b"typed".to_vec()).unwrap();
    let deadline = Nanos(30_000_000);
    let full = Here { console_wanted: 0, ..here(1, Some(deadline)) };
    assert!(clock(bench.live.next(&full).unwrap()) >= deadline);
    assert!(matches!(bench.live.next(&full).unwrap(), Next::Enter));
    // Once there is room, it comes, as much as there is room for.
    let room = Here { console_wanted: 2, ..here(2, Some(Nanos::NEVER)) };
    clock(bench.live.next(&room).unwrap());
    assert!(matches!(bench.live.next(&room).unwrap(), Next::Event(Event::Console(b"ty"))));
}

#[test]
fn a_burst_has_its_limits() {
    let (port, mut socket) = network();
    let mut bench = bench(Some(port), None);
    let frames = 3 * BURST_MAX;
    (0..frames).for_each(|number| send(&mut socket, &[number as u8; 60]));
    let mut received = 0;
    // The guest's wish is a limit, and so is the burst.
    for (position, wanted) in [(1, 1), (2, BURST_MAX + 100), (3, 7)] {
        let mut here = Here { frames_wanted: wanted, ..here(position, Some(Nanos::NEVER)) };
        clock(bench.live.next(&here).unwrap());
        let mut burst = 0;
        loop {
            match bench.live.next(&here).unwrap() {
                Next::Event(Event::Frame(frame)) => {
                    assert_eq!(frame, [received as u8; 60]);
                    received += 1;
                    burst += 1;
                    here.frames_wanted -= 1;
                }
                Next::Enter => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(burst, wanted.min(BURST_MAX));
    }
}

#[test]
fn a_busy_guest_is_told_the_time_now_and_then() {
    let mut bench = bench(None, None);
    let mut position = 0;
    let inside = loop {
        position += 1;
        match bench.live.next(&here(position, None)).unwrap() {
            Next::Enter => {}
            Next::Event(Event::Clock(now)) => break now,
            other => panic!("{other:?}"),
        }
    };
    assert!(inside >= Nanos(10_000_000));
    let split = Here { boundary: false, ..here(position + 1, None) };
    assert!(matches!(bench.live.next(&split).unwrap(), Next::Complete), "the clock still shows zero");
}

#[test]
fn a_guest_that_must_wait_waits_and_its_log_does_not() {
    let reasons: [fn(&Signals) -> &AtomicBool; 2] = [|signals| &signals.throttle, |signals| &signals.hold];
    for what in reasons {
        let Bench { mut live, reader, signals, .. } = bench(None, None);
        what(&signals).store(true, Ordering::Release);
        let told = signals.clone();
        let releaser = thread::spawn(move || {
            // The guest waits once what it wrote is handed over: only then may it go on.
            let entry = reader.entries().recv().unwrap();
            what(&told).store(false, Ordering::Release);
            told.bell.ring();
            matches!(entry, Entry::Batch(_, mark) if mark.watermark == Position(5))
        });
        // If it has waited for long, it is told the time.
        assert!(matches!(live.next(&here(5, None)).unwrap(), Next::Enter | Next::Event(Event::Clock(_))));
        assert!(releaser.join().unwrap());
    }
}

#[test]
fn a_guest_that_sleeps_can_be_paused() {
    let mut bench = bench(None, None);
    let signals = bench.signals.clone();
    let pauser = thread::spawn(move || {
        signals.pause.store(true, Ordering::Release);
        signals.bell.ring();
    });
    assert!(matches!(bench.live.next(&here(1, Some(Nanos::NEVER))).unwrap(), Next::Pause));
    pauser.join().unwrap();
}

#[test]
fn checkpoints_come_at_their_cadence() {
    let mut bench = bench(None, Some(Cadence::Positions(100)));
    assert!(matches!(bench.live.next(&here(99, None)).unwrap(), Next::Enter));
    assert!(matches!(bench.live.next(&here(100, None)).unwrap(), Next::Pause));
    bench.live.checkpoint_done(Position(100));
    assert!(matches!(bench.live.next(&here(199, None)).unwrap(), Next::Enter));
    assert!(matches!(bench.live.next(&here(200, None)).unwrap(), Next::Pause));
}

#[test]
fn what_was_given_is_what_is_logged() {
    let (port, mut socket) = network();
    let mut bench = bench(Some(port), None);
    send(&mut socket, &[1; 60]);
    bench.typed.send(b"ab".to_vec()).unwrap();
    let here = Here { frames_wanted: 1, ..here(9, Some(Nanos::NEVER)) };
    let now = clock(bench.live.next(&here).unwrap());
    assert!(matches!(bench.live.next(&here).unwrap(), Next::Event(Event::Frame(_))));
    let here = Here { frames_wanted: 0, ..here };
    assert!(matches!(bench.live.next(&here).unwrap(), Next::Event(Event::Console(_))));
    bench.live.flush();
    let Entry::Batch(batch, mark) = bench.reader.entries().recv().unwrap() else { panic!("a batch") };
    let logged: Vec<_> = batch.records().map(|record| (record.at, record.what)).collect();
    let events = [Event::Clock(now), Event::Frame(&[1; 60]), Event::Console(b"ab")];
    assert_eq!(logged, events.map(|event| (Position(9), Record::Event(event))));
    assert_eq!(mark.watermark, Position(9));
}

fn boot(program: &Program) -> Machine<ScriptedCpu> {
    let memory = Memory::new(MEMORY_MIN).unwrap();
    program.load(&memory);
    let cpu = ScriptedCpu::new(memory.clone(), program.entry());
    Machine::new(cpu, memory, &DevicesConfig { mac: Some([2, 0, 0, 0, 0, 1]), mtu: 1500 })
}

/// The end of a log: a frame was delivered, the entry into the guest was not seen any more.
struct Delivers(Option<[u8; 60]>, [u8; 60]);

impl Effects for Delivers {
    fn effect(&mut self, _: Position, effect: Effect<'_>) {
        panic!("{effect:?}");
    }
}

impl World for Delivers {
    type Error = std::convert::Infallible;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, Self::Error> {
        Ok(match (here.idle, self.0.take()) {
            (None, frame) => {
                self.0 = frame;
                Next::Enter
            }
            (Some(_), Some(frame)) => {
                self.1 = frame;
                Next::Event(Event::Frame(&self.1))
            }
            (Some(deadline), None) => {
                assert_eq!(deadline, Nanos::ZERO, "a guest that was given input sleeps no longer");
                Next::Pause
            }
        })
    }
}

/// A takeover must not put a guest to sleep that the old primary has just woken.
#[test]
fn a_guest_that_was_given_input_does_not_sleep_on_in_another_world() {
    let mut machine = boot(&echo(16));
    let stop = machine.run(&mut Delivers(Some([3; 60]), [0; 60])).unwrap();
    assert!(matches!(stop, Stop::Paused));
    let Bench { live, signals, effects, .. } = bench(None, None);
    let (requests, asked) = flume::bounded(1);
    let reader = Reader::start(signals.clone()).unwrap();
    let guest = thread::spawn(move || Recorder::new(machine, live, asked, reader).run());
    // Nothing else comes in that could wake it.
    assert_eq!(effects.recv_timeout(Duration::from_secs(60)).unwrap(), [3; 60]);
    requests.send(Request::Stop).unwrap();
    signals.pause.store(true, Ordering::Release);
    signals.bell.ring();
    assert!(matches!(guest.join().unwrap(), Ok(Ended::Stopped)));
}

#[test]
fn a_guest_that_ends_itself_leaves_a_whole_log() {
    let Bench { live, reader, signals, effects, .. } = bench(None, Some(Cadence::Positions(4)));
    let (_requests, asked) = flume::bounded(1);
    let pages = Reader::start(signals).unwrap();
    let mut recorder = Recorder::new(boot(&powers_off(6, 3)), live.greet([9; 32]), asked, pages);
    assert!(matches!(recorder.run(), Ok(Ended::PoweredOff(3))));
    drop(recorder);
    assert_eq!(effects.try_iter().last(), Some(3_u32.to_le_bytes().to_vec()));
    let batches: Vec<_> = reader.entries().iter().collect();
    let mut records = Vec::new();
    let mut last = Position::BOOT;
    for entry in &batches {
        let Entry::Batch(batch, mark) = entry else { panic!("nobody asked for an image") };
        assert!(mark.watermark >= last && mark.released <= mark.watermark);
        last = mark.watermark;
        records.extend(batch.records());
    }
    assert!(matches!(records[0].what, Record::Event(Event::Entropy(seed)) if seed == [9; 32]));
    assert!(matches!(records[1].what, Record::Event(Event::Wall(wall)) if wall > 0));
    let checkpoints = records.iter().filter(|record| record.what == Record::Checkpoint).count();
    assert_eq!(checkpoints, 2, "one at position 4, one at the end");
    let last_digest = records.last().map(|record| (record.at, record.what));
    assert!(matches!(last_digest, Some((at, Record::Digest { of, .. })) if (at, of) == (last, last)));
}
