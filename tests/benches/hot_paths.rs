//! What is done for every event, batch, page, effect and position: `cargo bench --package echovisor-tests --bench hot_paths`

use std::{convert::Infallible, hint::black_box, sync::Arc, time::Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use echovisor_event::{Effect, Event, Position, Term, limits::PAGE_SIZE};
use echovisor_log::{Batch, Cause, Decoder, Encoder, Mark, Record, SegmentStart};
use echovisor_machine::{
    Effects, Here, Machine, Memory, Next, PageSet, Stop, World,
    cpu::scripted::{ScriptedCpu, programs::console_counter},
};
use echovisor_recorder::gate::{Gate, Outlet};
use echovisor_replayer::{Arrived, Follower, History, Progress, Reached, Replay, Unconfirmed};
use echovisor_snapshot::PageDigests;
use echovisor_tests::scripted::boot;
use fastrand::Rng;

/// Bytes of a frame: a short request in TCP.
const FRAME: usize = 100;

/// Frames of one burst.
const BURST: usize = 16;

/// Pages of a small delta.
const PAGES: usize = 64;

/// Guest memory for the digests, bytes.
const MEMORY: u64 = 64 << 20;

/// Positions of a replay.
const POSITIONS: u64 = 10_000;

criterion_group!(hot_paths, append, codec, deltas, digest, gate, replay);
criterion_main!(hot_paths);

fn append(criterion: &mut Criterion) {
    let (mut batch, frame) = (Batch::new(), [7; FRAME]);
    criterion.bench_function("append a frame to the log", |bencher| {
        bencher.iter(|| {
            if batch.is_full() {
                batch.clear();
            }
            batch.push(Position(1), Record::Event(Event::Frame(black_box(&frame)))).expect("room")
        });
    });
}

/// A mark behind everything at `at`.
fn mark(at: Position) -> Mark {
    Mark { watermark: at, released: Position::BOOT, trail: 1, trail_at: at }
}

/// A burst of frames: half of each is new.
fn burst(random: &mut Rng, batch: &mut Batch) {
    batch.clear();
    let mut frame = [7; FRAME];
    for _ in 0..BURST {
        random.fill(&mut frame[FRAME / 2..]);
        batch.push(Position(1), Record::Event(Event::Frame(&frame))).expect("room");
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a batch of 16 frames");
    group.throughput(Throughput::Elements(BURST as u64));
    let start = SegmentStart::first(Term(1));
    let (mut encoder, mut random, mut batch) = (Encoder::new(start), Rng::with_seed(1), Batch::new());
    group.bench_function("encode", |bencher| {
        bencher.iter_batched_ref(
            || (),
            |()| {
                burst(&mut random, &mut batch);
                encoder.encode(&batch, mark(Position(1))).expect("it goes on").body.len()
            },
            BatchSize::SmallInput,
        );
    });
    let (mut encoder, mut decoder) = (Encoder::new(start), Decoder::new(start));
    let mut decoded = Batch::new();
    group.bench_function("decode", |bencher| {
        bencher.iter_batched_ref(
            || {
                burst(&mut random, &mut batch);
                encoder.encode(&batch, mark(Position(1))).expect("it goes on").body.to_vec()
            },
            |body| decoder.decode(body, &mut decoded).expect("the next one"),
            BatchSize::PerIteration,
        );
    });
}

/// Pages that were sent before, with a few words of each changed.
fn deltas(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a delta of 64 pages");
    group.throughput(Throughput::Bytes((PAGES * PAGE_SIZE) as u64));
    let (mut encoder, mut random) = (Encoder::new(SegmentStart::first(Term(1))), Rng::with_seed(1));
    let (mut batch, mut pages) = (Batch::new(), vec![[7; PAGE_SIZE]; PAGES]);
    pages.iter_mut().for_each(|page| random.fill(page));
    let mut at = Position(1);
    group.bench_function("append and encode", |bencher| {
        bencher.iter(|| {
            batch.clear();
            for (number, page) in (0..).zip(&mut pages) {
                page[random.usize(..PAGE_SIZE)] ^= 1;
                batch.push(at, Record::Page { page: number, contents: page }).expect("room");
            }
            batch.push(at, Record::Delta { cause: Cause::Epoch, state: &[1; 4096] }).expect("room");
            at = at.next();
            encoder.encode(&batch, mark(at)).expect("it goes on").body.len()
        });
    });
}

fn digest(criterion: &mut Criterion) {
    let memory = Memory::new(MEMORY).expect("memory");
    let mut digests = PageDigests::of(&memory);
    let mut page = 0;
    criterion.bench_function("digest of a dirty page, up to the root", |bencher| {
        bencher.iter(|| {
            page = (page + 1) % memory.pages();
            let mut changed = PageSet::none(memory.pages());
            changed.insert(page);
            digests.update(&memory, &changed);
            digests.root()
        });
    });
}

/// Where nothing goes.
struct Nowhere;

impl Outlet for Nowhere {
    fn release(&mut self, effect: Effect<'_>) {
        black_box(effect);
    }
}

fn gate(criterion: &mut Criterion) {
    let gate = Gate::new(Box::new(Nowhere));
    gate.protect(std::time::Duration::MAX);
    let mut at = Position(0);
    criterion.bench_function("gate: a frame is held, acknowledged and released", |bencher| {
        bencher.iter(|| {
            at = at.next();
            gate.pass(at, Effect::Frame(&[7; FRAME]));
            gate.acknowledge(at);
        });
    });
}

/// Lets time pass for a guest that sleeps, and writes that down.
struct Ticking(Batch, Option<Position>);

impl Effects for Ticking {
    fn effect(&mut self, _: Position, _: Effect<'_>) {}
}

impl World for Ticking {
    type Error = Infallible;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, Infallible> {
        if here.position >= Position(POSITIONS) || self.0.is_full() {
            return Ok(Next::Pause);
        }
        match here.idle {
            Some(deadline) if self.1 != Some(here.position) => {
                self.1 = Some(here.position);
                let event = Event::Clock(deadline);
                self.0.push(here.position, Record::Event(event)).expect("room");
                Ok(Next::Event(event))
            }
            _ => Ok(Next::Enter),
        }
    }
}

/// One batch.
struct Once(Option<(Batch, Mark)>);

impl History for Once {
    type Error = Infallible;

    fn next(&mut self) -> Result<Option<Arrived>, Infallible> {
        Ok(self.0.take().map(|(batch, mark)| Arrived { batch, mark, at: Instant::now() }))
    }

    fn recycle(&mut self, _: Batch) {}
}

fn replay(criterion: &mut Criterion) {
    let mut machine: Machine<ScriptedCpu> = boot(&console_counter());
    let mut world = Ticking(Batch::new(), None);
    assert!(matches!(machine.run(&mut world), Ok(Stop::Paused)));
    let mark = Mark { trail: machine.trail().0 as u32, ..mark(machine.position()) };
    let mut group = criterion.benchmark_group("replay on the scripted processor");
    group.throughput(Throughput::Elements(machine.position().0));
    group.bench_function("positions", |bencher| {
        bencher.iter_batched(
            || {
                let history = Once(Some((world.0.compact(), mark)));
                let replay = Replay::new(history, Unconfirmed::default(), true, Arc::<Progress>::default());
                Follower::new(boot(&console_counter()), replay)
            },
            |mut follower| assert!(matches!(follower.run(None), Ok(Reached::LogEnds))),
            BatchSize::LargeInput,
        );
    });
}
