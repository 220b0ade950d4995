//! Batches to bytes and back, by well-meaning and by other senders.

mod synthetic;

use echovisor_event::{
    Digest, Event, Nanos, Position, Term,
    limits::{BATCH_EVENTS_MAX, BATCH_PAYLOAD_MAX, BURST_MAX, BYTES_MAX, FRAME_MAX, PAGE_SIZE},
};
use echovisor_log::{
    Batch, Cause, Cursor, DecodeError, Decoder, EncodeError, Encoder, Mark, PushError, Record, SegmentStart,
    limits::BODY_MAX,
};
use proptest::{collection::vec, prelude::*};
use synthetic::{Clients, Value};

/// A record, owned, with the steps since the one before it.
#[derive(Clone, Debug)]
enum Spec {
    Clock(u64),
    Wall(u64),
    Frame(Vec<u8>),
    /// A request of made-up clients, with some of its bytes changed.
    Request(Vec<(usize, u8)>),
    Console(Vec<u8>),
    Entropy(Vec<u8>),
    Checkpoint,
    /// Of a checkpoint so many positions before.
    Digest(u64, [u8; 32]),
    /// One of few pages, of zeros but for these bytes.
    Page(u64, Vec<(usize, u8)>),
    Delta(usize, Vec<u8>),
}

fn spec() -> impl Strategy<Value = Spec> {
    prop_oneof![
        1 => (0u64..1 << 40).prop_map(Spec::Clock),
        1 => any::<u64>().prop_map(Spec::Wall),
        1 => vec(any::<u8>(), 0..200).prop_map(Spec::Frame),
        4 => vec((0usize..120, any::<u8>()), 0..3).prop_map(Spec::Request),
        1 => vec(any::<u8>(), 0..20).prop_map(Spec::Console),
        1 => vec(any::<u8>(), 0..20).prop_map(Spec::Entropy),
        1 => Just(Spec::Checkpoint),
        1 => (0u64..100, any::<[u8; 32]>()).prop_map(|(behind, digest)| Spec::Digest(behind, digest)),
        4 => (0u64..5, vec((0..PAGE_SIZE, any::<u8>()), 0..40)).prop_map(|(page, bytes)| Spec::Page(page, bytes)),
        1 => (0..Cause::ALL.len(), vec(any::<u8>(), 0..200)).prop_map(|(cause, state)| Spec::Delta(cause, state)),
    ]
}

type BatchSpec = (Vec<(u64, Spec)>, u64, u32, u64);

fn batches() -> impl Strategy<Value = Vec<BatchSpec>> {
    let record = (0u64..3, spec());
    vec((vec(record, 0..30), 0u64..1000, any::<u32>(), any::<u64>()), 1..8)
}

/// Fills batches as a recorder would, and calls `use_batch` with each and its mark.
fn record(specs: &[BatchSpec], mut use_batch: impl FnMut(&Batch, Mark)) {
    let mut clients = Clients::new(3, Value::Digits, true);
    let (mut batch, mut at, mut clock) = (Batch::new(), Position::BOOT, 0);
    for (records, rest, trail, back) in specs {
        batch.clear();
        for (steps, spec) in records {
            at = Position(at.0 + steps);
            let frame;
            let mut page = [0; PAGE_SIZE];
            let record = match spec {
                Spec::Clock(delta) => {
                    clock += delta;
                    Record::Event(Event::Clock(Nanos(clock)))
                }
                Spec::Wall(nanos) => Record::Event(Event::Wall(*nanos)),
                Spec::Frame(bytes) => Record::Event(Event::Frame(bytes)),
                Spec::Request(mutations) => {
                    frame = mutations.iter().fold(clients.frame(), |mut frame, (index, byte)| {
                        let len = frame.len();
                        frame[index % len] ^= byte;
                        frame
                    });
                    Record::Event(Event::Frame(&frame))
                }
                Spec::Console(bytes) => Record::Event(Event::Console(bytes)),
                Spec::Entropy(bytes) => Record::Event(Event::Entropy(bytes)),
                Spec::Checkpoint => Record::Checkpoint,
                Spec::Digest(behind, digest) => {
                    Record::Digest { of: Position(at.0.saturating_sub(*behind)), digest: Digest(*digest) }
                }
                Spec::Page(number, bytes) => {
                    bytes.iter().for_each(|(at, byte)| page[*at] = *byte);
                    let contents = if bytes.is_empty() { &[][..] } else { &page };
                    // Some have their place in what is remembered in common.
                    Record::Page { page: number << 12, contents }
                }
                Spec::Delta(cause, state) => Record::Delta { cause: Cause::ALL[*cause], state },
            };
            batch.push(at, record).unwrap();
        }
        at = Position(at.0 + rest);
        let earlier = |by: u64| Position(at.0 - by.min(at.0));
        use_batch(
            &batch,
            Mark { watermark: at, released: earlier(*back), trail: *trail, trail_at: earlier(rest / 2) },
        );
    }
}

fn start() -> SegmentStart {
    SegmentStart::first(Term(3))
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(specs in batches(), again in batches()) {
        let (mut encoder, mut decoder, mut decoded) = (Encoder::new(start()), Decoder::new(start()), Batch::new());
        record(&specs, |batch, mark| {
            let encoded = encoder.encode(batch, mark).unwrap();
            let head = decoder.decode(encoded.body, &mut decoded).unwrap();
            assert_eq!(head, encoded.head);
            assert_eq!(head.mark, mark);
            assert!(batch.records().eq(decoded.records()));
        });
        // A next segment starts over, but for the chain, the numbers and the position.
        let next = decoder.following(Term(4));
        prop_assert_eq!(encoder.next_segment(Term(4)), next);
        decoder.start(next);
        record(&again, |batch, mark| {
            let shifted = Mark { watermark: Position(mark.watermark.0 + next.position.0), ..mark };
            let encoded = match encoder.encode(batch, shifted) {
                Err(EncodeError::OutOfRange { .. }) => return,
                other => other.unwrap(),
            };
            assert_eq!(decoder.decode(encoded.body, &mut decoded).unwrap(), encoded.head);
            assert!(batch.records().eq(decoded.records()));
        });
    }

    /// Whatever a sender does to a body: an error, or a batch that is valid in itself.
    #[test]
    fn changed_bodies_are_refused_or_valid(specs in batches(), changes in vec((any::<prop::sample::Index>(), 1u8..), 1..4), cut: bool) {
        let (mut encoder, mut decoder, mut decoded) = (Encoder::new(start()), Decoder::new(start()), Batch::new());
        record(&specs, |batch, mark| {
            let mut body = encoder.encode(batch, mark).unwrap().body.to_vec();
            for (index, xor) in &changes {
                let index = index.index(body.len());
                body[index] ^= xor;
                if cut {
                    body.truncate(index);
                    break;
                }
            }
            match decoder.decode(&body, &mut decoded) {
                Ok(head) => check(&decoded, head.from, head.mark.watermark),
                Err(_) => assert!(decoded.is_empty()),
            }
        });
    }

    #[test]
    fn random_bodies_are_refused(body in vec(any::<u8>(), 0..2000)) {
        let mut decoded = Batch::new();
        prop_assert!(Decoder::new(start()).decode(&body, &mut decoded).is_err());
        prop_assert!(decoded.is_empty());
        // The same with a valid beginning: random bytes as what is compressed.
        let body = compressed(&body);
        prop_assert!(Decoder::new(start()).decode(&body, &mut decoded).is_err());
        prop_assert!(decoded.is_empty());
    }

    /// A valid batch whose uncompressed bytes were changed, so that the layout's own checks are reached.
    #[test]
    fn changed_layouts_are_refused_or_valid(specs in batches(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut encoder = Encoder::new(start());
        let mut first = None;
        record(&specs[..1], |batch, mark| first = Some(encoder.encode(batch, mark).unwrap().body.to_vec()));
        let mut raw = decompressed(&first.unwrap());
        for (index, byte) in &changes {
            let index = index.index(raw.len());
            raw[index] = *byte;
        }
        let mut decoded = Batch::new();
        match Decoder::new(start()).decode(&compressed(&raw), &mut decoded) {
            Ok(head) => check(&decoded, head.from, head.mark.watermark),
            Err(_) => prop_assert!(decoded.is_empty()),
        }
    }
}

/// What a replayer relies on.
fn check(batch: &Batch, from: Position, watermark: Position) {
    let mut last = from;
    let (mut clock, mut payload) = (Nanos::ZERO, 0);
    for record in batch.records() {
        assert!(last <= record.at && record.at <= watermark);
        last = record.at;
        match record.what {
            Record::Event(Event::Clock(now)) => {
                assert!(clock <= now);
                clock = now;
            }
            Record::Event(Event::Frame(bytes)) => {
                assert!(bytes.len() <= FRAME_MAX);
                payload += bytes.len();
            }
            Record::Event(Event::Console(bytes) | Event::Entropy(bytes)) => {
                assert!(bytes.len() <= BYTES_MAX);
                payload += bytes.len();
            }
            Record::Digest { of, .. } => {
                assert!(of <= record.at);
                payload += 32;
            }
            Record::Page { contents, .. } => {
                assert!(matches!(contents.len(), 0 | PAGE_SIZE));
                payload += contents.len();
            }
            Record::Delta { state, .. } => payload += state.len(),
            Record::Event(Event::Wall(_)) | Record::Checkpoint | Record::Stop => {}
        }
    }
    assert_eq!(payload, batch.payload_len());
    assert!(payload <= BATCH_PAYLOAD_MAX && batch.len() <= BATCH_EVENTS_MAX);
}

/// Bytes as a stream that is flushed, not ended, as bodies are.
fn compressed(raw: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(19).unwrap();
    encoder.write_all(raw).unwrap();
    encoder.flush().unwrap();
    encoder.get_ref().clone()
}

fn decompressed(body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut raw = Vec::new();
    // The stream does not end, which the reader complains about after the last byte.
    let _ = zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut raw);
    raw
}

fn mark(watermark: u64) -> Mark {
    Mark { watermark: Position(watermark), ..Mark::default() }
}

#[test]
fn a_cursor_stops_between_records() {
    let mut batch = Batch::new();
    batch.push(Position(1), Record::Event(Event::Frame(b"frame"))).unwrap();
    batch.push(Position(1), Record::Event(Event::Clock(Nanos(5)))).unwrap();
    batch.push(Position(2), Record::Event(Event::Console(b"x"))).unwrap();
    let mut cursor = Cursor::default();
    let mut found = Vec::new();
    while let Some((record, after)) = batch.get(cursor) {
        assert_eq!(batch.get(cursor).map(|(again, _)| again), Some(record));
        found.push(record);
        cursor = after;
    }
    assert!(batch.records().eq(found));
}

#[test]
fn a_bomb_is_refused() {
    let body = compressed(&vec![0; 64 << 20]);
    assert!(body.len() < BODY_MAX);
    let error = Decoder::new(start()).decode(&body, &mut Batch::new()).unwrap_err();
    assert!(matches!(error, DecodeError::Bomb { sequence: 0 }), "{error}");
    let error = Decoder::new(start()).decode(&vec![0; BODY_MAX + 1], &mut Batch::new()).unwrap_err();
    assert!(matches!(error, DecodeError::BodyTooLong { .. }), "{error}");
}

#[test]
fn a_window_beyond_ours_is_refused() {
    use std::io::Write;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&[1; 100]).unwrap();
    encoder.flush().unwrap();
    let error = Decoder::new(start()).decode(encoder.get_ref(), &mut Batch::new()).unwrap_err();
    assert!(matches!(error, DecodeError::Compressed { .. }), "{error}");
}

#[test]
fn batches_must_come_in_order() {
    let mut encoder = Encoder::new(start());
    let mut batch = Batch::new();
    let bodies: Vec<_> = (1..4).map(|at| encoder.encode(&batch, mark(at)).unwrap().body.to_vec()).collect();
    let mut decoder = Decoder::new(start());
    decoder.decode(&bodies[0], &mut batch).unwrap();
    // What a later body refers to is not there, so its bytes make no sense at all.
    decoder.decode(&bodies[2], &mut batch).unwrap_err();
    let error = decoder.decode(&bodies[1], &mut batch).unwrap_err();
    assert!(matches!(error, DecodeError::Broken { segment: 0, sequence: 1 }), "{error}");

    for sequence in [1, 2, 255] {
        let other = SegmentStart { sequence, ..start() };
        let error = Decoder::new(start())
            .decode(Encoder::new(other).encode(&batch, mark(9)).unwrap().body, &mut batch);
        let error = error.unwrap_err();
        assert!(matches!(error, DecodeError::Sequence { expected: 0 }), "{error}");
        assert!(error.hint().is_some());
    }
}

/// A segment's start comes from outside, too.
#[test]
fn the_last_numbers_there_are_do_no_harm() {
    let last = SegmentStart {
        segment: u64::MAX,
        term: Term(u64::MAX),
        sequence: u64::MAX,
        position: Position(u64::MAX),
        chain: Digest::default(),
    };
    let (mut encoder, mut decoder, mut batch) = (Encoder::new(last), Decoder::new(last), Batch::new());
    for _ in 0..2 {
        let encoded = encoder.encode(&batch, mark(u64::MAX)).unwrap();
        decoder.decode(encoded.body, &mut batch).unwrap();
    }
    assert_eq!(decoder.following(Term(0)), encoder.next_segment(Term(0)));
}

#[test]
fn the_encoder_refuses_what_a_decoder_would() {
    let mut encoder = Encoder::new(SegmentStart { position: Position(10), ..start() });
    let mut batch = Batch::new();
    assert!(encoder.encode(&batch, mark(9)).is_err(), "the watermark goes back");
    assert!(
        encoder.encode(&batch, Mark { released: Position(12), ..mark(11) }).is_err(),
        "released beyond the watermark"
    );
    assert!(
        encoder.encode(&batch, Mark { trail_at: Position(12), ..mark(11) }).is_err(),
        "trail beyond the watermark"
    );
    batch.push(Position(9), Record::Event(Event::Clock(Nanos(5)))).unwrap();
    assert!(encoder.encode(&batch, mark(11)).is_err(), "a record before the batch");
    batch.clear();
    batch.push(Position(12), Record::Event(Event::Clock(Nanos(5)))).unwrap();
    assert!(encoder.encode(&batch, mark(11)).is_err(), "a record behind the batch");
    encoder.encode(&batch, mark(12)).unwrap();
    batch.clear();
    batch.push(Position(12), Record::Event(Event::Clock(Nanos(4)))).unwrap();
    let error = encoder.encode(&batch, mark(12)).unwrap_err();
    assert!(matches!(error, EncodeError::ClockBackwards { .. }), "{error}");
    batch.clear();
    batch.push(Position(12), Record::Stop).unwrap();
    let error = batch.push(Position(12), Record::Stop).unwrap_err();
    assert!(matches!(error, PushError::Stopped { .. }), "{error}");
    let body = encoder.encode(&batch, mark(12)).unwrap().body.to_vec();
    assert!(matches!(encoder.encode(&batch, mark(12)), Err(EncodeError::Stopped)));
    assert!(!body.is_empty());
    encoder.next_segment(Term(4));
    encoder.encode(&batch, mark(12)).unwrap();
}

#[test]
fn a_burst_fits_until_the_batch_is_full() {
    let mut batch = Batch::new();
    let frame = vec![7; FRAME_MAX];
    let mut at = Position::BOOT;
    while !batch.is_full() {
        at = at.next();
        batch.push(at, Record::Event(Event::Clock(Nanos(at.0)))).unwrap();
        (0..BURST_MAX).for_each(|_| batch.push(at, Record::Event(Event::Frame(&frame))).unwrap());
        batch.push(at, Record::Checkpoint).unwrap();
        batch.push(at, Record::Digest { of: at, digest: Digest::default() }).unwrap();
    }
    while batch.push(at, Record::Event(Event::Frame(&frame))).is_ok() {}
    let error = batch.push(at, Record::Event(Event::Frame(&frame))).unwrap_err();
    assert!(matches!(error, PushError::Full { .. }) && error.hint().is_some(), "{error}");
    let error = batch.push(at, Record::Event(Event::Frame(&[0; FRAME_MAX + 1]))).unwrap_err();
    assert!(matches!(error, PushError::TooLong { max: FRAME_MAX, .. }), "{error}");
    let digest = Record::Digest { of: at.next(), digest: Digest::default() };
    let error = batch.push(at, digest).unwrap_err();
    assert!(matches!(error, PushError::Backwards { .. }), "{error}");
    let error = batch.push(Position::BOOT, Record::Stop).unwrap_err();
    assert!(matches!(error, PushError::Backwards { .. }), "{error}");
    let mut decoded = Batch::new();
    let mut encoder = Encoder::new(start());
    let body = encoder.encode(&batch, mark(at.0)).unwrap().body;
    Decoder::new(start()).decode(body, &mut decoded).unwrap();
    assert!(batch.records().eq(decoded.records()));

    batch.clear();
    let small = Record::Event(Event::Clock(Nanos::ZERO));
    (0..BATCH_EVENTS_MAX).for_each(|_| batch.push(at, small).unwrap());
    assert!(batch.is_full() && batch.push(at, small).is_err());
}

/// The largest batch that does not compress at all must be within the bounds that decoders enforce.
#[test]
fn the_largest_batch_is_within_bounds() {
    let mut batch = Batch::new();
    let mut random = synthetic::Random(1);
    let len = BATCH_PAYLOAD_MAX / BATCH_EVENTS_MAX;
    for at in 0..BATCH_EVENTS_MAX as u64 {
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        batch.push(Position(at << 50), Record::Event(Event::Entropy(&bytes))).unwrap();
    }
    let mut encoder = Encoder::new(start());
    let body = encoder.encode(&batch, mark(u64::MAX)).unwrap().body;
    assert!(body.len() <= BODY_MAX);
    let mut decoded = Batch::new();
    Decoder::new(start()).decode(body, &mut decoded).unwrap();
    assert!(batch.records().eq(decoded.records()));
}

/// The promise of the log's size: requests with random keys and values in batches of 10 cost less than a quarter of their
/// frames (measured: 0.17; `cargo run --release --example traffic` prints the table).
#[test]
fn replication_costs_a_fraction_of_the_traffic() {
    let mut clients = Clients::new(50, Value::Digits, true);
    let (mut encoder, mut batch) = (Encoder::new(start()), Batch::new());
    let (mut frames, mut bodies) = (0, 0);
    let mut random = synthetic::Random(5);
    for at in 1..2000 {
        batch.clear();
        batch
            .push(Position(at), Record::Event(Event::Clock(Nanos(at * 30_000 + random.below(20_000)))))
            .unwrap();
        for _ in 0..10 {
            let frame = clients.frame();
            frames += frame.len();
            batch.push(Position(at), Record::Event(Event::Frame(&frame))).unwrap();
        }
        bodies +=
            encoder.encode(&batch, Mark { trail: random.next() as u32, ..mark(at) }).unwrap().body.len();
    }
    assert!(bodies * 4 < frames, "{bodies} bytes of log for {frames} bytes of frames");
}
