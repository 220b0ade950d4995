//! Recordings: written, closed, continued.

mod recordings;
mod synthetic;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use echovisor_event::{Digest, NodeId, Position, Term};
use echovisor_log::{
    Batch, Encoder, Mark,
    store::{Recording, Store, StoreError, Writer},
};
use recordings::{Recorder, header, read, recorded, segment_file};
use tempfile::TempDir;

#[test]
fn a_recording_is_read_as_it_was_written() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    recorder.store.seal().unwrap();
    drop(recorder);
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!(*recording.header(), header());
    assert_eq!(recording.segments().len(), 3);
    assert!(recording.segments().iter().all(|segment| segment.sealed));
    assert!(recording.damaged().is_empty());
    for segment in 0..3u64 {
        let (watermarks, damage) = read(&recording, segment);
        assert_eq!(watermarks, (1..=4).map(|batch| segment * 4 + batch).collect::<Vec<_>>());
        assert!(damage.is_none());
    }
    let checkpoints: Vec<_> =
        recording.checkpoints().iter().map(|found| (found.position.0, found.segment)).collect();
    assert_eq!(checkpoints, [(3, 0), (6, 1), (9, 2), (12, 2)]);
    assert_eq!(recording.term(), Some(Term(1)));
    // A second reader at the same time.
    Recording::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse { .. })));
    assert!(matches!(recording.read(3), Err(StoreError::UnknownSegment { segment: 3 })));
}

#[test]
fn only_the_owner_can_read_it_and_only_one_can_write_it() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("recording");
    let recorder = recorded(&dir);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&dir), mode(&dir.join("segments")), mode(&recorder.store.snapshots_dir())], [0o700; 3]);
    assert_eq!(
        [mode(&dir.join("header")), mode(&segment_file(&dir, 0)), mode(&dir.join("lock"))],
        [0o600; 3]
    );
    for error in [Store::open(&dir).err(), Recording::open(&dir).err(), Store::create(&dir, &header()).err()]
    {
        let error = error.unwrap();
        assert!(matches!(error, StoreError::InUse { .. }) && error.hint().is_some(), "{error}");
    }
    drop(recorder);
    assert!(matches!(Store::create(&dir, &header()), Err(StoreError::Exists { .. })));
    let nothing = dir.join("nothing");
    assert!(matches!(Recording::open(&nothing), Err(StoreError::NoRecording { .. })));
    assert!(matches!(Store::open(&nothing), Err(StoreError::NoRecording { .. })));
    assert!(!nothing.exists());
}

#[test]
fn a_recording_goes_on_after_it_was_closed_or_torn() {
    let dir = TempDir::new().unwrap();
    drop(recorded(dir.path()));
    // The third segment was neither flushed nor sealed.
    let mut recorder = Recorder::new(Store::open(dir.path()).unwrap(), Term(2));
    assert_eq!(recorder.at, Position(12));
    recorder.batch();
    recorder.store.see_term(Term(9)).unwrap();
    drop(recorder);
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!(recording.segments().len(), 4);
    assert_eq!(read(&recording, 2).0, [9, 10, 11, 12]);
    assert_eq!(read(&recording, 3).0, [13]);
    assert_eq!(recording.segments()[3].start.term, Term(2));
    assert_eq!(recording.term(), Some(Term(9)));
}

#[test]
fn batches_and_segments_must_continue_the_log() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    let term = Term(1);
    let next = recorder.store.next_start(term);
    for wrong in [
        echovisor_log::SegmentStart { segment: next.segment - 1, ..next },
        echovisor_log::SegmentStart { term: Term(0), ..next },
        echovisor_log::SegmentStart { sequence: next.sequence - 1, ..next },
        echovisor_log::SegmentStart { position: Position(next.position.0 + 1), ..next },
        echovisor_log::SegmentStart { chain: Digest([9; 32]), ..next },
    ] {
        let error = recorder.store.begin(&wrong).unwrap_err();
        assert!(matches!(error, StoreError::OutOfOrder { .. }), "{error}");
    }
    let batch = Batch::new();
    let mut ahead = Encoder::new(echovisor_log::SegmentStart { sequence: next.sequence + 1, ..next });
    let encoded = ahead.encode(&batch, Mark { watermark: Position(20), ..Mark::default() }).unwrap();
    let error = recorder.store.append(&encoded.head, batch.digests(), encoded.body).unwrap_err();
    assert!(error.to_string().contains("number is 13, but the recording continues with 12"), "{error}");
    // A secondary that took a new image leaves a gap.
    let gap = echovisor_log::SegmentStart {
        segment: next.segment + 2,
        sequence: next.sequence + 50,
        position: Position(1000),
        chain: Digest([5; 32]),
        term: Term(2),
    };
    recorder.store.begin(&gap).unwrap();
    recorder.encoder = Encoder::new(gap);
    recorder.at = gap.position;
    recorder.batch();
    recorder.store.seal().unwrap();
    let reader = recorder.store.read(gap.segment).unwrap();
    assert_eq!(*reader.start(), gap);
    let error = recorder.store.append(&encoded.head, batch.digests(), encoded.body).unwrap_err();
    assert!(matches!(error, StoreError::NoSegment), "{error}");
    drop(recorder);
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!(read(&recording, gap.segment).0, [1001]);
    assert!(recording.damaged().is_empty());
}

/// The guest was elsewhere, and may even have come back to an earlier position than was logged here: to one that came to others.
#[test]
fn a_log_goes_on_behind_a_gap_that_shows() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    for (term, position) in [(2, 500), (3, 7)] {
        let start = recorder.store.start_behind_gap(Term(term), Position(position));
        recorder.store.begin(&start).unwrap();
        recorder.encoder = Encoder::new(start);
        recorder.at = start.position;
        recorder.batch();
    }
    let back = recorder.store.start_behind_gap(Term(3), Position(1));
    let error = recorder.store.begin(&back).unwrap_err();
    assert!(matches!(error, StoreError::OutOfOrder { .. }), "in the same term it was here: {error}");
    recorder.store.seal().unwrap();
    drop(recorder);
    let recording = Recording::open(dir.path()).unwrap();
    let segments = recording.segments();
    let follows: Vec<bool> = segments.windows(2).map(|pair| pair[1].follows(&pair[0])).collect();
    assert_eq!(follows, [true, true, false, false]);
    assert_eq!([read(&recording, 2).0, read(&recording, 3).0, read(&recording, 4).0].concat()[4..], [501, 8]);
    assert!(recording.damaged().is_empty());
}

#[test]
fn a_reserved_folder_is_nobody_elses_and_holds_nothing_yet() {
    let dir = TempDir::new().unwrap();
    let reserved = Store::reserve(dir.path()).unwrap();
    assert!(matches!(Store::reserve(dir.path()).err(), Some(StoreError::InUse { .. })));
    drop(reserved);
    assert!(matches!(Store::open(dir.path()).err(), Some(StoreError::NoRecording { .. })));
    let mut store = Store::reserve(dir.path()).unwrap().create(&header()).unwrap();
    let start = store.start_behind_gap(Term(4), Position(77));
    assert_eq!((start.segment, start.sequence), (0, 0), "there is nothing before it");
    store.begin(&start).unwrap();
    store.seal().unwrap();
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().term(), Some(Term(4)));
}

#[test]
fn the_open_segment_can_be_read_while_it_grows() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    for more in 0..3 {
        let mut reader = recorder.store.read(2).unwrap();
        let (mut batch, mut count) = (Batch::new(), 0);
        while reader.next(&mut batch).unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 4 + more);
        assert!(reader.torn().is_none());
        recorder.batch();
        recorder.store.flush().unwrap();
    }
}

#[test]
fn a_full_disk_is_named_and_can_be_survived() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    let next = recorder.encoder.next_segment(Term(1));
    let in_the_way = dir.path().join("segments/00000003.seg.tmp");
    std::os::unix::fs::symlink("/dev/full", &in_the_way).unwrap();
    let error = recorder.store.begin(&next).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }) && error.hint().is_some(), "{error}");
    fs::remove_file(in_the_way).unwrap();
    recorder.store.begin(&next).unwrap();
    recorder.batch();
    recorder.store.seal().unwrap();
    drop(recorder);
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!((read(&recording, 2).0, read(&recording, 3).0), (vec![9, 10, 11, 12], vec![13]));
}

#[test]
fn who_writes_is_remembered_and_damage_of_it_is_named() {
    let dir = TempDir::new().unwrap();
    let store = Store::create(dir.path(), &header()).unwrap();
    assert_eq!(store.writer().unwrap(), None);
    let writer = Writer { node: NodeId([9; 16]), arbitrated: true, durable: false };
    store.set_writer(writer).unwrap();
    let later = Writer { durable: true, ..writer };
    store.set_writer(later).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.writer().unwrap(), Some(later));

    let file = dir.path().join("writer");
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        let error = store.writer().unwrap_err();
        assert!(matches!(&error, StoreError::Writer { file: named, .. } if *named == file), "{at}: {error}");
        assert!(error.hint().is_some());
    }
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    assert!(matches!(store.writer(), Err(StoreError::Writer { .. })));
}

#[test]
fn a_log_ends_on_purpose_where_it_was_stopped_or_never_begun() {
    let dir = TempDir::new().unwrap();
    let store = Store::create(dir.path(), &header()).unwrap();
    assert!(store.ends_on_purpose().unwrap(), "nothing ran");
    let mut recorder = Recorder::new(store, Term(1));
    assert!(!recorder.store.ends_on_purpose().unwrap(), "a guest may have run");
    recorder.batch();
    recorder.stop();
    assert!(recorder.store.ends_on_purpose().unwrap());
    recorder.segment(Term(1));
    assert!(!recorder.store.ends_on_purpose().unwrap(), "it was started again");
    recorder.batch();
    drop(recorder);
    assert!(!Store::open(dir.path()).unwrap().ends_on_purpose().unwrap(), "it was killed");
}
