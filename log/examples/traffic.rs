//! Prints what batches of made-up redis traffic cost: bytes per request before and after, microseconds per batch.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use std::time::{Duration, Instant};

use echovisor_event::{Event, Nanos, Position, Term};
use echovisor_log::{Batch, Decoder, Encoder, Mark, Record, SegmentStart};
use synthetic::{Clients, Value};

const REQUESTS: u64 = 200_000;

fn main() {
    println!("value   stamps  conns  frames/batch  frame B  body B/frame  ratio  encode us  decode us");
    for (name, value) in [("fixed", Value::Fixed), ("short", Value::Short), ("digits", Value::Digits)] {
        for timestamps in [false, true] {
            for (connections, per_batch) in [(1, 1), (50, 4), (50, 10), (50, 16), (50, 64), (50, 600)] {
                measure(name, value, timestamps, connections, per_batch);
            }
        }
    }
}

fn measure(name: &str, value: Value, timestamps: bool, connections: usize, per_batch: u64) {
    let mut clients = Clients::new(connections, value, timestamps);
    let (mut encoder, mut decoder) =
        (Encoder::new(SegmentStart::first(Term(1))), Decoder::new(SegmentStart::first(Term(1))));
    let (mut batch, mut decoded) = (Batch::new(), Batch::new());
    let (mut at, mut clock, mut trail) = (Position(1000), 0, synthetic::Random(7));
    let (mut frames, mut bodies, mut encoding, mut decoding) = (0, 0, Duration::ZERO, Duration::ZERO);
    let batches = REQUESTS / per_batch;
    for _ in 0..batches {
        batch.clear();
        at = at.next();
        clock += 20_000 + trail.below(30_000);
        batch.push(at, Record::Event(Event::Clock(Nanos(clock)))).unwrap();
        for _ in 0..per_batch {
            let frame = clients.frame();
            frames += frame.len();
            batch.push(at, Record::Event(Event::Frame(&frame))).unwrap();
        }
        let mark = Mark {
            watermark: at,
            released: at.previous().unwrap(),
            trail: trail.next() as u32,
            trail_at: at.previous().unwrap(),
        };
        let begin = Instant::now();
        let encoded = encoder.encode(&batch, mark).unwrap();
        encoding += begin.elapsed();
        bodies += encoded.body.len();
        let begin = Instant::now();
        decoder.decode(encoded.body, &mut decoded).unwrap();
        decoding += begin.elapsed();
        assert!(batch.records().eq(decoded.records()));
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / batches as f64;
    println!(
        "{name:7} {timestamps:6} {connections:6} {per_batch:13} {:8.1} {:13.1} {:6.3} {:10.2} {:10.2}",
        frames as f64 / REQUESTS as f64,
        bodies as f64 / REQUESTS as f64,
        bodies as f64 / frames as f64,
        each(encoding),
        each(decoding),
    );
}
