//! The bodies of batches, as they come over the link and out of a segment's file.
//!
//! The first byte says what the parts are: compressed bodies, archived batches, or the columns of batches.

#![no_main]

use std::cell::RefCell;

use echovisor_event::{Position, Term};
use echovisor_fuzz::{Columns, Stream, parts};
use echovisor_log::{Batch, Decoder, Encoder, SegmentStart};
use libfuzzer_sys::fuzz_target;

/// What is made once, because it takes longer than to read a batch.
struct Reading {
    decoder: Decoder,
    again: Decoder,
    batch: Batch,
    copy: Batch,
}

thread_local! {
    static READING: RefCell<Reading> = RefCell::new(Reading {
        decoder: Decoder::new(SegmentStart::first(Term(1))),
        again: Decoder::new(SegmentStart::first(Term(1))),
        batch: Batch::new(),
        copy: Batch::new(),
    });
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let mut stream = Stream::new();
    let bodies: Vec<Vec<u8>> = match mode {
        0 => parts(rest).map(<[u8]>::to_vec).collect(),
        1 => parts(rest).map(|archived| stream.body(archived)).collect(),
        _ => {
            let columns: Vec<_> = parts(rest).map(<[u8]>::to_vec).collect();
            let batches = columns.chunks(Columns::COUNT).map(|some| {
                let column = |index: usize| some.get(index).cloned().unwrap_or_default();
                Columns { columns: std::array::from_fn(column) }
            });
            batches.map(|columns| stream.body(&columns.archived())).collect()
        }
    };
    READING.with_borrow_mut(|reading| read(&bodies, reading));
});

/// Whatever is accepted is a log: it keeps its own order, and says the same when it is written again.
fn read(bodies: &[Vec<u8>], reading: &mut Reading) {
    let Reading { decoder, again, batch, copy } = reading;
    let start = SegmentStart::first(Term(1));
    decoder.start(start);
    again.start(start);
    let mut encoder = None;
    let mut from = Position::BOOT;
    for body in bodies {
        let Ok(head) = decoder.decode(body, batch) else {
            assert!(batch.is_empty(), "nothing of a refused batch is handed out");
            assert!(decoder.decode(body, batch).is_err(), "nothing is read behind it");
            return;
        };
        assert_eq!(head.from, from);
        assert!(head.mark.released <= head.mark.watermark && head.mark.trail_at <= head.mark.watermark);
        for record in batch.records() {
            assert!(from <= record.at && record.at <= head.mark.watermark);
            from = record.at;
        }
        from = head.mark.watermark;
        let encoder = encoder.get_or_insert_with(|| Encoder::new(start));
        let encoded = encoder.encode(batch, head.mark).expect("what was read can be written");
        let body = encoded.body.to_vec();
        let found = again.decode(&body, copy).expect("what was written can be read");
        assert_eq!(found.mark, head.mark);
        assert!(batch.records().eq(copy.records()), "{batch:?} became {copy:?}");
    }
}
