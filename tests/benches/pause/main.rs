//! How long a guest stands still while its state is captured, as a table in Markdown for BENCHMARKS.md:
//! `cargo bench --package echovisor-tests --bench pause`
//!
//! The guest fills its memory and writes to it all the time: 63 of 64 writes go to 512 pages, the others anywhere in half of it.
//! Three ways to capture it take turns: as the recorder does it, by copying everything at once, and by write protection with
//! userfaultfd. `ECHOVISOR_MEMORY`, such as `64 3072`, sets the sizes in MiB, `ECHOVISOR_CAPTURES` the number of captures.

mod guest;
mod userfault;
mod world;

use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use echovisor_event::{Digest, Effect, Position, Term};
use echovisor_log::{Batch, Encoder, Mark, Record, SegmentStart};
use echovisor_machine::{Machine, PageSet, cpu::kvm::KvmCpu};
use echovisor_recorder::{
    Captured, Entry, HostClock, Journal, JournalReader, Live, Pause, Purpose, Reader, Recorder, Request,
    Signals,
    gate::{Gate, Outlet},
};
use echovisor_snapshot::{Precopy, state_digest};
use echovisor_tests::size;

use crate::{userfault::Protection, world::Ticking};

/// How long the guest runs between two captures.
const BETWEEN: Duration = Duration::from_millis(50);

/// Nobody listens to the guest.
struct Silence;

impl Outlet for Silence {
    fn release(&mut self, _: Effect<'_>) {}
}

/// The pauses of one way to capture a guest of one size.
struct Row {
    memory: u64,
    way: &'static str,
    pauses: Vec<Pause>,
}

fn main() {
    let sizes = env::var("ECHOVISOR_MEMORY").unwrap_or_else(|_| "64 256 1024 3072".into());
    let count = size("ECHOVISOR_CAPTURES", 100) as usize;
    let (mut rows, mut peaks) = (Vec::new(), Vec::new());
    for mebibytes in sizes.split_whitespace() {
        let memory = mebibytes.parse::<u64>().expect("a size in MiB") << 20;
        let mut row = |way, pauses| rows.push(Row { memory, way, pauses });
        eprintln!("{mebibytes} MiB");
        let (pauses, first, peak, longest) = recorder(guest::machine(memory), count);
        row("first capture, of everything", vec![first]);
        row("capture", pauses);
        // What takes longer with more memory is asked less often of it.
        let few = (count * 16 / (memory >> 20) as usize).clamp(count.min(3), count);
        row("stop and copy", stop_and_copy(guest::machine(memory), few));
        row("userfaultfd", write_protection(guest::machine(memory), few));
        peaks.push((memory, peak, longest));
    }
    print(&rows);
    println!(
        "\n| guest | peak of resident memory while all of it is captured, of the guest's | longest stop until then, µs |"
    );
    println!("|--:|--:|--:|");
    for (memory, peak, longest) in peaks {
        let of_guest = peak as f64 / memory as f64;
        println!("| {} MiB | {of_guest:.2} | {:.0} |", memory >> 20, micros(longest));
    }
    println!("\nA checkpoint takes {} bytes of the log.", checkpoint_bytes());
}

/// Captures as the recorder does it, behind the first: their pauses, that of the first, and the peak of memory and the longest
/// stop during that: when it begins, the account of writes does, too.
fn recorder(machine: Machine<KvmCpu>, count: usize) -> (Vec<Pause>, Pause, u64, Duration) {
    let signals = Arc::new(Signals::new().expect("a descriptor"));
    let (journal, log) = Journal::new();
    let gate = Arc::new(Gate::new(Box::new(Silence)));
    let live = Live::new(None, gate, journal, signals.clone(), HostClock::starting(), None);
    let reader = Reader::start(signals.clone()).expect("a thread");
    let (requests, asked) = flume::bounded(1);
    let guest = thread::spawn(move || Recorder::new(machine, live, asked, reader).run());
    let ask = |request| {
        requests.send(request).expect("the guest runs");
        signals.pause.store(true, Ordering::Release);
        signals.bell.ring();
    };
    thread::sleep(BETWEEN);
    // Written to, this begins the count of the peak anew.
    fs::write("/proc/self/clear_refs", "5").expect("proc(5)");
    ask(Request::Capture(Purpose::Snapshot));
    let first = next(&log, None).expect("a capture");
    let peak = peak_memory();
    let longest = Duration::from_nanos(signals.pause_longest.load(Ordering::Relaxed));
    let mut pauses = Vec::new();
    for _ in 0..count {
        next(&log, Some(Instant::now() + BETWEEN));
        ask(Request::Capture(Purpose::Snapshot));
        pauses.push(next(&log, None).expect("a capture").pause);
    }
    ask(Request::Stop);
    while let Ok(entry) = log.entries().recv() {
        recycle(&log, entry);
    }
    guest.join().expect("the guest's thread").expect("the guest runs");
    (pauses, first.pause, peak, longest)
}

/// Reads the log up to the next capture, or until it is time.
fn next(log: &JournalReader, until: Option<Instant>) -> Option<Captured> {
    loop {
        let entry = match until {
            Some(until) => log.entries().recv_deadline(until).ok()?,
            None => log.entries().recv().ok()?,
        };
        if let Some(captured) = recycle(log, entry) {
            return Some(captured);
        }
    }
}

fn recycle(log: &JournalReader, entry: Entry) -> Option<Captured> {
    match entry {
        Entry::Batch(batch, _) => {
            log.recycle(batch);
            None
        }
        Entry::Capture(captured) => Some(*captured),
        Entry::Paused(..) => panic!("nobody asked for that"),
    }
}

/// The largest resident set of this process since it was last reset, bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc(5)");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Everything is copied and hashed while the guest stands still.
fn stop_and_copy(mut machine: Machine<KvmCpu>, count: usize) -> Vec<Pause> {
    let mut world = Ticking::new();
    let all = PageSet::all(machine.memory().pages());
    let mut pauses = Vec::new();
    for _ in 0..count {
        let asked = world.run(&mut machine, BETWEEN);
        let mut pause = Pause { complete: asked.elapsed(), pages: all.len(), ..Pause::default() };
        let begun = Instant::now();
        let state = machine.save().expect("a boundary");
        pause.state = begun.elapsed();
        let mut precopy = Precopy::new(machine.memory(), true);
        let begun = Instant::now();
        precopy.copy(&all);
        pause.copy = begun.elapsed();
        let begun = Instant::now();
        let digest = state_digest(machine.memory(), &state);
        pause.hash = begun.elapsed();
        drop(precopy.finish(state, digest));
        pauses.push(pause);
    }
    pauses
}

/// Everything is protected while the guest stands still; a page is copied before it is written. There is no digest, and what
/// it costs the guest to be stopped at each page is not in the pause.
fn write_protection(mut machine: Machine<KvmCpu>, count: usize) -> Vec<Pause> {
    let Some(protection) = Protection::new(machine.memory()) else {
        eprintln!("this host has no userfaultfd write protection for this process");
        return Vec::new();
    };
    let mut world = Ticking::new();
    let mut pauses = Vec::new();
    for _ in 0..count {
        let asked = world.run(&mut machine, BETWEEN);
        let mut pause = Pause { complete: asked.elapsed(), rounds: 1, ..Pause::default() };
        let begun = Instant::now();
        let state = machine.save().expect("a boundary");
        pause.state = begun.elapsed();
        let mut precopy = Precopy::new(machine.memory(), false);
        let begun = Instant::now();
        protection.arm();
        pause.copy = begun.elapsed();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let server = scope.spawn(|| protection.serve(&mut precopy, &done));
            world.run(&mut machine, BETWEEN);
            done.store(true, Ordering::Release);
            pause.pages = server.join().expect("the server");
        });
        protection.disarm();
        drop(precopy.finish(state, Digest::default()));
        pauses.push(pause);
    }
    pauses
}

/// What a checkpoint adds to the log.
fn checkpoint_bytes() -> usize {
    let mut encoder = Encoder::new(SegmentStart::first(Term(1)));
    let mut batch = Batch::new();
    batch.push(Position(1000), Record::Checkpoint(Digest([0xa5; 32]))).expect("an empty batch");
    let mark = Mark { watermark: Position(1000), ..Mark::default() };
    encoder.encode(&batch, mark).expect("a batch").body.len()
}

fn print(rows: &[Row]) {
    println!(
        "| guest | way | captures | pause p50 µs | p99 | max | complete | harvest | state | copy | hash | pages | rounds |"
    );
    println!("|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for Row { memory, way, pauses } in rows.iter().filter(|row| !row.pauses.is_empty()) {
        let total = sorted(pauses, |pause| micros(pause.total()));
        let median = |part: fn(&Pause) -> f64| sorted(pauses, part)[pauses.len() / 2];
        println!(
            "| {} MiB | {way} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            memory >> 20,
            pauses.len(),
            total[total.len() / 2],
            total[total.len() * 99 / 100],
            total[total.len() - 1],
            median(|pause| micros(pause.complete)),
            median(|pause| micros(pause.harvest)),
            median(|pause| micros(pause.state)),
            median(|pause| micros(pause.copy)),
            median(|pause| micros(pause.hash)),
            median(|pause| pause.pages as f64),
            median(|pause| f64::from(pause.rounds)),
        );
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn sorted(pauses: &[Pause], part: impl Fn(&Pause) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = pauses.iter().map(part).collect();
    values.sort_by(f64::total_cmp);
    values
}
