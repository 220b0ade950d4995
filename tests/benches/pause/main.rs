//! How long a guest stands still while its state is captured, as a table in Markdown for BENCHMARKS.md:
//! `cargo bench --package echovisor-tests --bench pause`
//!
//! One guest is the server `kv` under redis-benchmark. The other fills its memory and writes to it all the time: 63 of 64 writes go to
//! 512 pages, the others anywhere in half of it; beyond 3 GiB, to what lies above 4 GiB. Ways to capture it take turns: as the
//! recorder does it, by copying everything at once, and by write protection with userfaultfd; beside them the recorder's checkpoints
//! alone. `ECHOVISOR_MEMORY`, such as `64 4096`, sets the sizes in MiB, `ECHOVISOR_CAPTURES` the number of captures;
//! `ECHOVISOR_KV=0` leaves out the server.

mod guest;
mod recorder;
mod userfault;
mod world;

use std::{
    env, fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use echovisor_event::{Digest, Position, Term};
use echovisor_log::{Batch, Encoder, Mark, Record, SegmentStart};
use echovisor_machine::{Machine, PageSet, cpu::kvm::KvmCpu};
use echovisor_recorder::{Cadence, Pause, port::Port};
use echovisor_snapshot::{Precopy, state_digest};
use echovisor_tests::{Lab, Scene, scenario, size};

use crate::{recorder::Recorded, userfault::Protection, world::Ticking};

/// How long the guest runs between two captures.
const BETWEEN: Duration = Duration::from_millis(50);

/// How long the guest stood still once, and what for, as far as that is known.
#[derive(Clone, Copy)]
struct Stop {
    total: Duration,
    parts: Option<Pause>,
}

impl From<Pause> for Stop {
    fn from(pause: Pause) -> Stop {
        Stop { total: pause.total(), parts: Some(pause) }
    }
}

/// The pauses of one way to capture a guest.
struct Row {
    guest: String,
    way: &'static str,
    stops: Vec<Stop>,
}

fn main() {
    scenario(|scene| {
        let sizes = env::var("ECHOVISOR_MEMORY").unwrap_or_else(|_| "64 256 1024 4096".into());
        let count = size("ECHOVISOR_CAPTURES", 100) as usize;
        let (mut rows, mut peaks) = (Vec::new(), Vec::new());
        if env::var_os("ECHOVISOR_KV").is_none_or(|wanted| wanted != "0") {
            under_load(scene, count, &mut rows);
        }
        for mebibytes in sizes.split_whitespace() {
            let memory = mebibytes.parse::<u64>().expect("a size in MiB") << 20;
            let mut row =
                |way, stops| rows.push(Row { guest: format!("writes, {mebibytes} MiB"), way, stops });
            eprintln!("{mebibytes} MiB");
            let (stops, first, peak, longest) = captures(guest::machine(memory), count);
            row("first capture, of everything", vec![first]);
            row("capture", stops);
            row("checkpoint", checkpoints(guest::machine(memory), count));
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
    });
}

/// The server under redis-benchmark: captures, then checkpoints alone, each as often as `count` says.
fn under_load(scene: &Scene, count: usize, rows: &mut Vec<Row>) {
    for way in ["capture", "checkpoint"] {
        eprintln!("kv: {way}");
        let lab = Lab::new(scene);
        let port = lab.primary.namespace.enter(|| Port::tap("tap0")).expect("a TAP");
        let cadence = (way == "checkpoint").then_some(Cadence::Busy(BETWEEN));
        let recorded = Recorded::start(guest::kv(), Some(port), cadence);
        let mut stops = Vec::new();
        thread::scope(|scope| {
            let (connected, served) = flume::bounded(1);
            let (enough, wanted) = flume::bounded::<()>(1);
            let (lab, load) = (&lab, "-t set,get -r 200000 -d 16 -n 20000 -c 50");
            scope.spawn(move || {
                drop(lab.connect(6379));
                lab.redis_benchmark(load);
                connected.send(()).expect("somebody waits");
                while !wanted.is_disconnected() {
                    lab.redis_benchmark(load);
                }
            });
            while served.try_recv().is_err() {
                recorded.run(BETWEEN);
            }
            // The first one begins the account of what changes.
            for number in 0..=count {
                let stop = if cadence.is_some() {
                    recorded.checkpoint()
                } else {
                    recorded.run(BETWEEN);
                    recorded.capture()
                };
                if number > 0 {
                    stops.push(stop);
                }
            }
            drop(enough);
            // Whoever waits for an answer gets it.
            let ended = Instant::now() + Duration::from_secs(5);
            while Instant::now() < ended {
                recorded.run(BETWEEN);
            }
        });
        recorded.stop();
        rows.push(Row { guest: "kv, 64 MiB, 50 clients".into(), way, stops });
    }
}

/// Captures behind the first: their pauses, that of the first, and the peak of memory and the longest stop during that: when it
/// begins, the account of writes does, too.
fn captures(machine: Machine<KvmCpu>, count: usize) -> (Vec<Stop>, Stop, u64, Duration) {
    let recorded = Recorded::start(machine, None, None);
    recorded.run(BETWEEN);
    // Written to, this begins the count of the peak anew.
    fs::write("/proc/self/clear_refs", "5").expect("proc(5)");
    let first = recorded.capture();
    let (peak, longest) = (peak_memory(), recorded.longest());
    let mut stops = Vec::new();
    for _ in 0..count {
        recorded.run(BETWEEN);
        stops.push(recorded.capture());
    }
    recorded.stop();
    (stops, first, peak, longest)
}

/// Checkpoints at which nothing is captured, behind the first one.
fn checkpoints(machine: Machine<KvmCpu>, count: usize) -> Vec<Stop> {
    let recorded = Recorded::start(machine, None, Some(Cadence::Busy(BETWEEN)));
    recorded.checkpoint();
    let stops = (0..count).map(|_| recorded.checkpoint()).collect();
    recorded.stop();
    stops
}

/// The largest resident set of this process since it was last reset, bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc(5)");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Everything is copied and hashed while the guest stands still.
fn stop_and_copy(mut machine: Machine<KvmCpu>, count: usize) -> Vec<Stop> {
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
        drop((precopy.finish(state), digest));
        pauses.push(pause.into());
    }
    pauses
}

/// Everything is protected while the guest stands still; a page is copied before it is written. There is no digest, and what
/// it costs the guest to be stopped at each page is not in the pause.
fn write_protection(mut machine: Machine<KvmCpu>, count: usize) -> Vec<Stop> {
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
        drop(precopy.finish(state));
        pauses.push(pause.into());
    }
    pauses
}

/// What a checkpoint adds to the log.
fn checkpoint_bytes() -> usize {
    let mut encoder = Encoder::new(SegmentStart::first(Term(1)));
    let mut batch = Batch::new();
    let (of, digest) = (Position(1000), Digest([0xa5; 32]));
    batch.push(of, Record::Checkpoint).expect("an empty batch");
    batch.push(Position(1010), Record::Digest { of, digest }).expect("a batch with room");
    let mark = Mark { watermark: Position(1010), ..Mark::default() };
    encoder.encode(&batch, mark).expect("a batch").body.len()
}

fn print(rows: &[Row]) {
    println!(
        "| guest | way | times | pause p50 µs | p99 | max | of that on a core: p50 | p99 | max | complete | harvest | state | copy | hash | pages | rounds |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for Row { guest, way, stops } in rows.iter().filter(|row| !row.stops.is_empty()) {
        let total = sorted(stops.iter().map(|stop| micros(stop.total)));
        let parts: Vec<Pause> = stops.iter().filter_map(|stop| stop.parts).collect();
        let median = |part: fn(&Pause) -> f64| match sorted(parts.iter().map(part)) {
            values if values.is_empty() => "–".to_owned(),
            values => format!("{:.0}", values[values.len() / 2]),
        };
        let on_core = sorted(parts.iter().filter(|pause| !pause.ran.is_zero()).map(on_core));
        println!(
            "| {guest} | {way} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            stops.len(),
            spread(&total),
            spread(&on_core),
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

/// Microseconds of a pause in which the guest's thread had a core.
fn on_core(pause: &Pause) -> f64 {
    micros(pause.complete + pause.hash + pause.ran)
}

/// Median, 99th percentile and maximum, as cells of a table.
fn spread(sorted: &[f64]) -> String {
    let Some(max) = sorted.last() else { return "– | – | –".to_owned() };
    // The nearest rank: of a hundred values the last but one.
    let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
    format!("{:.0} | {p99:.0} | {max:.0}", sorted[sorted.len() / 2])
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
