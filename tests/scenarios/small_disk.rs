//! The log's store on a file system that fills up: what was written stays, and the log goes on when there is space again.

use std::{fs, path::Path};

use echovisor_event::{Digest, Event, Position, Term, VmId};
use echovisor_log::{
    Batch, Encoder, Mark, Record,
    link::Fingerprint,
    store::{Header, Recording, SegmentReader, Store, StoreError},
};
use echovisor_tests::scenario;

#[test]
fn a_file_system_that_fills_up_keeps_what_was_written() {
    scenario(|scene| {
        let disk = scene.small_disk(4 << 20);
        let (dir, ballast) = (disk.path.join("recording"), disk.path.join("ballast"));
        let fingerprint = Fingerprint { text: "cpu: made up".to_owned(), digest: Digest([1; 32]) };
        let header = Header { vm: VmId([7; 16]), fingerprint, guest: Digest([2; 32]), machine: Vec::new() };
        let mut store = Store::create(&dir, &header).expect("a recording");
        let start = store.next_start(Term(1));
        store.begin(&start).expect("a segment");
        let (mut encoder, mut random) = (Encoder::new(start), fastrand::Rng::with_seed(3));
        let mut batch = Batch::new();
        let mut kept = Vec::new();
        let refused = loop {
            let at = Position(kept.len() as u64 + 1);
            let bytes: Vec<u8> = (0..4000).map(|_| random.u8(..)).collect();
            batch.clear();
            batch.push(at, Record::Event(Event::Entropy(&bytes))).expect("room in a batch");
            let mark = Mark { watermark: at, ..Mark::default() };
            let encoded = encoder.encode(&batch, mark).expect("a batch");
            if kept.len() == 10 {
                fill(&ballast);
            }
            match store.append(&encoded.head, batch.digests(), encoded.body) {
                Ok(()) => kept.push(at),
                Err(error) => {
                    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
                    break (encoded.head, encoded.body.to_vec());
                }
            }
        };
        assert!(kept.len() >= 10, "{kept:?}");
        assert_eq!(watermarks(store.read(start.segment).expect("a segment")), kept);

        fs::remove_file(&ballast).expect("it was filled");
        store.append(&refused.0, batch.digests(), &refused.1).expect("there is space");
        store.seal().expect("there is space");
        drop(store);
        kept.push(refused.0.mark.watermark);
        let recording = Recording::open(&dir).expect("a recording");
        assert_eq!(watermarks(recording.read(start.segment).expect("a segment")), kept);
    });
}

/// Takes all the space that is left, but for less than a batch.
fn fill(ballast: &Path) {
    let (mut more, mut bytes) = (1 << 24, Vec::new());
    while more > 1000 {
        bytes.resize(bytes.len() + more, 1);
        if fs::write(ballast, &bytes).is_err() {
            bytes.truncate(bytes.len() - more);
            more /= 2;
        }
    }
}

/// The watermarks of a segment's batches, all of which are whole.
fn watermarks(mut reader: SegmentReader) -> Vec<Position> {
    let (mut batch, mut watermarks) = (Batch::new(), Vec::new());
    while let Some(head) = reader.next(&mut batch).expect("whole") {
        watermarks.push(head.mark.watermark);
    }
    assert!(reader.torn().is_none());
    watermarks
}
