//! Each check of a batch that came from outside, one by one.

use echovisor_event::{Event, Nanos, Term, limits::PAGE_SIZE};
use rkyv::rancor;

use super::*;
use crate::{Cause, Record, flow::tcp_frame};

fn head() -> Head {
    let mark = Mark { watermark: Position(30), released: Position(20), trail: 9, trail_at: Position(29) };
    Head { term: Term(1), sequence: 5, from: Position(10), mark, chain: Digest::default() }
}

/// Where it follows.
fn next() -> SegmentStart {
    let Head { term, sequence, from: position, chain, .. } = head();
    SegmentStart { segment: 2, term, sequence, position, chain }
}

/// The columns of a batch with one record of each kind.
fn columns() -> Columns {
    let mut batch = Batch::new();
    let records = [
        Record::Event(Event::Clock(Nanos(1000))),
        Record::Event(Event::Wall(77)),
        Record::Event(Event::Frame(b"frame")),
        Record::Event(Event::Console(b"console")),
        Record::Event(Event::Entropy(b"entropy")),
        Record::Checkpoint,
        Record::Digest { of: Position(15), digest: Digest([3; 32]) },
        Record::Stop,
    ];
    for (at, record) in (10..).zip(records) {
        batch.push(Position(at), record).unwrap();
    }
    let mut columns = Columns::default();
    columns.pack(&head(), &batch, &mut Context::default(), true);
    columns
}

fn read(columns: &Columns) -> Result<(Head, Batch), ColumnError> {
    let bytes = rkyv::to_bytes::<rancor::Panic>(columns).unwrap();
    let mut reader = Reader::new(rkyv::access::<ArchivedColumns, rancor::Error>(&bytes).unwrap());
    let head = reader.head(&next())?.expect("the batch that follows");
    let mut batch = Batch::new();
    reader.records(&head, &mut batch, &mut Context::default())?;
    Ok((head, batch))
}

/// A column of numbers.
fn numbers(values: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| varint::put(&mut out, *value));
    out
}

/// Batch 5 with a span, what is not released of it, and what has happened since the trail.
fn head_column(values: [u64; 3]) -> Vec<u8> {
    [vec![5], numbers(&values), vec![0; 4]].concat()
}

#[test]
fn a_valid_batch_is_read() {
    let (found, batch) = read(&columns()).unwrap();
    assert_eq!(found, head());
    assert_eq!(batch.len(), 8);
}

#[test]
fn every_contradiction_is_refused_and_named() {
    type Change = fn(&mut Columns);
    let cases: [(&str, usize, Change); 24] = [
        ("head", 0, |columns| columns.head.truncate(7)),
        ("head", 0, |columns| columns.head.push(0)),
        ("head", 0, |columns| columns.head = head_column([u64::MAX, 0, 0])),
        ("head", 0, |columns| columns.head = head_column([20, 31, 0])),
        ("head", 0, |columns| columns.head = head_column([20, 0, 31])),
        ("codes", 3, |columns| columns.codes[3] = 6),
        ("codes", 0, |columns| columns.codes[0] = code::STOP),
        ("codes", BATCH_EVENTS_MAX, |columns| columns.codes = vec![code::STOP; BATCH_EVENTS_MAX + 1]),
        ("steps", 7, |columns| columns.steps[7] = 16),
        ("steps", 7, |columns| {
            columns.steps.pop();
            varint::put(&mut columns.steps, u64::MAX);
        }),
        ("steps", 7, |columns| columns.steps.truncate(7)),
        ("steps", 7, |columns| columns.steps.push(0)),
        ("numbers", 1, |columns| columns.numbers = numbers(&[1])),
        ("numbers", 6, |columns| columns.numbers = numbers(&[1000, 77, 17])),
        ("numbers", 7, |columns| columns.numbers.push(1)),
        ("flows", 2, |columns| columns.flows[0] = 1),
        ("flows", 2, |columns| columns.flows.clear()),
        ("headers", 7, |columns| columns.headers.push(0)),
        ("lengths", 4, |columns| columns.lengths = numbers(&[5, 7])),
        ("lengths", 2, |columns| columns.lengths = numbers(&[9217, 7, 7])),
        ("lengths", 3, |columns| columns.lengths = numbers(&[5, 4097, 7])),
        ("lengths", 3, |columns| columns.lengths = numbers(&[5, u64::MAX, 7])),
        ("payload", 6, |columns| columns.payload.truncate(40)),
        ("payload", 7, |columns| columns.payload.push(0)),
    ];
    for (index, (column, record, change)) in cases.into_iter().enumerate() {
        let mut columns = columns();
        change(&mut columns);
        let error = read(&columns).map(|(head, _)| head).unwrap_err();
        assert_eq!((error.column, error.record), (column, record), "case {index}: {error}");
    }
}

#[test]
fn numbers_stay_in_their_range() {
    let clocks = |values: &[u64]| Columns {
        codes: vec![code::CLOCK; values.len()],
        steps: vec![0; values.len()],
        numbers: numbers(values),
        head: columns().head,
        ..Columns::default()
    };
    assert!(read(&clocks(&[u64::MAX])).is_ok());
    let error = read(&clocks(&[u64::MAX, 1])).map(|(head, _)| head).unwrap_err();
    assert_eq!((error.column, error.record), ("numbers", 1), "{error}");
}

#[test]
fn the_payload_is_bounded_as_a_whole() {
    let count = BATCH_PAYLOAD_MAX / 4096 + 1;
    let columns = Columns {
        codes: vec![code::ENTROPY; count],
        steps: vec![0; count],
        lengths: numbers(&vec![4096; count]),
        payload: vec![0; 4096 * count],
        head: columns().head,
        ..Columns::default()
    };
    let error = read(&columns).map(|(head, _)| head).unwrap_err();
    assert_eq!((error.column, error.record), ("payload", count - 1), "{error}");
}

/// A page that is zero, a whole one, what differs in it, and the rest of a state.
#[test]
fn a_delta_that_contradicts_itself_is_refused() {
    let mut batch = Batch::new();
    let mut page = [5; PAGE_SIZE];
    batch.push(Position(10), Record::Page { page: 3, contents: &[] }).unwrap();
    batch.push(Position(10), Record::Page { page: 4, contents: &page }).unwrap();
    page[9] = 6;
    batch.push(Position(10), Record::Page { page: 4, contents: &page }).unwrap();
    batch.push(Position(10), Record::Delta { cause: Cause::Epoch, state: b"state" }).unwrap();
    let columns = || {
        let mut columns = Columns::default();
        columns.pack(&head(), &batch, &mut Context::default(), true);
        columns
    };
    assert_eq!(
        read(&columns()).unwrap().1.records().collect::<Vec<_>>(),
        batch.records().collect::<Vec<_>>()
    );
    // One word of the page is sent again, behind two numbers.
    let difference = 2 + 8;
    assert_eq!(columns().payload.len(), PAGE_SIZE + difference + 5);

    type Change = fn(&mut Columns);
    let cases: [(&str, usize, Change); 8] = [
        ("lengths", 0, |columns| columns.lengths[0] = 0),
        ("lengths", 2, |columns| columns.lengths = numbers(&[1, 4096, 4097, 5])),
        ("payload", 2, |columns| columns.payload[PAGE_SIZE] = 0x80),
        ("payload", 2, |columns| columns.payload[PAGE_SIZE + 1] = 0),
        ("numbers", 3, |columns| *columns.numbers.last_mut().unwrap() = 4),
        ("lengths", 3, |columns| columns.lengths = numbers(&[1, 4096, 10, 256 * 1024 + 1])),
        ("payload", 3, |columns| columns.payload.truncate(PAGE_SIZE + 12)),
        ("numbers", 2, |columns| columns.numbers.truncate(2)),
    ];
    for (index, (column, record, change)) in cases.into_iter().enumerate() {
        let mut columns = columns();
        change(&mut columns);
        let error = read(&columns).map(|(head, _)| head).unwrap_err();
        assert_eq!((error.column, error.record), (column, record), "case {index}: {error}");
    }
}

/// Two requests of a connection.
#[test]
fn a_frame_that_repeats_what_there_was_not_is_refused() {
    let mut batch = Batch::new();
    for (number, data) in (0..).zip([b"key:000001", b"key:000012"]) {
        let frame = tcp_frame(1, 100 + 10 * number, 7, number as u16, data);
        batch.push(Position(10), Record::Event(Event::Frame(&frame))).unwrap();
    }
    let columns = || {
        let mut columns = Columns::default();
        columns.pack(&head(), &batch, &mut Context::default(), true);
        columns
    };
    assert_eq!(columns().repeats, [8, 0]);
    assert!(read(&columns()).unwrap().1.records().eq(batch.records()));

    type Change = fn(&mut Columns);
    let cases: [(&str, Change); 8] = [
        ("repeats", |columns| columns.repeats.clear()),
        // Less of the second than that, and less of the first.
        ("repeats", |columns| (columns.lengths, columns.repeats) = (numbers(&[76, 8]), numbers(&[9, 0]))),
        ("repeats", |columns| (columns.lengths, columns.repeats) = (numbers(&[76, 12]), numbers(&[11, 0]))),
        ("repeats", |columns| columns.repeats = numbers(&[11, 0])),
        ("repeats", |columns| columns.repeats = numbers(&[8, 3])),
        ("repeats", |columns| columns.repeats = numbers(&[8, 0, 0])),
        ("payload", |columns| columns.repeats = numbers(&[8, 1])),
        ("payload", |columns| columns.repeats = numbers(&[7, 0])),
    ];
    for (index, (column, change)) in cases.into_iter().enumerate() {
        let mut columns = columns();
        change(&mut columns);
        let error = read(&columns).map(|(head, _)| head).unwrap_err();
        assert_eq!((error.column, error.record), (column, 1), "case {index}: {error}");
    }
}
