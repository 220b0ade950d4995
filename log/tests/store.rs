//! Recordings: written, continued, torn, damaged.

mod synthetic;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use echovisor_event::{Digest, Event, Nanos, NodeId, Position, Term, VmId};
use echovisor_log::{
    Batch, Encoder, Mark, Record,
    link::Fingerprint,
    store::{Damage, DamageKind, Header, Recording, Store, StoreError, Writer},
};
use proptest::prelude::*;
use synthetic::{Clients, Value};
use tempfile::TempDir;

fn header() -> Header {
    let fingerprint = Fingerprint { text: "cpu: made up\nkvm: none".to_owned(), digest: Digest([1; 32]) };
    Header { vm: VmId([7; 16]), fingerprint, guest: Digest([2; 32]), machine: vec![3; 100] }
}

/// Writes segments of batches into a store as a recorder does.
struct Recorder {
    store: Store,
    encoder: Encoder,
    clients: Clients,
    batch: Batch,
    at: Position,
}

impl Recorder {
    fn new(mut store: Store, term: Term) -> Recorder {
        let start = store.next_start(term);
        store.begin(&start).unwrap();
        let clients = Clients::new(2, Value::Digits, false);
        Recorder { store, encoder: Encoder::new(start), clients, batch: Batch::new(), at: start.position }
    }

    fn batch(&mut self) {
        self.batch.clear();
        self.at = self.at.next();
        self.batch.push(self.at, Record::Event(Event::Clock(Nanos(self.at.0 * 1000)))).unwrap();
        self.batch.push(self.at, Record::Event(Event::Frame(&self.clients.frame()))).unwrap();
        if self.at.0.is_multiple_of(3) {
            self.batch.push(self.at, Record::Checkpoint).unwrap();
            let digest = Digest([self.at.0 as u8; 32]);
            self.batch.push(self.at, Record::Digest { of: self.at, digest }).unwrap();
        }
        let encoded =
            self.encoder.encode(&self.batch, Mark { watermark: self.at, ..Mark::default() }).unwrap();
        self.store.append(&encoded.head, &self.batch, encoded.body).unwrap();
    }

    fn stop(&mut self) {
        self.batch.clear();
        self.batch.push(self.at, Record::Stop).unwrap();
        let mark = Mark { watermark: self.at, ..Mark::default() };
        let encoded = self.encoder.encode(&self.batch, mark).unwrap();
        self.store.append(&encoded.head, &self.batch, encoded.body).unwrap();
    }

    fn segment(&mut self, term: Term) {
        let start = self.encoder.next_segment(term);
        self.store.begin(&start).unwrap();
    }
}

/// A recording with three segments of four batches, sealed.
fn recorded(dir: &Path) -> Recorder {
    let mut recorder = Recorder::new(Store::create(dir, &header()).unwrap(), Term(1));
    for segment in 0..3 {
        if segment > 0 {
            recorder.segment(Term(1));
        }
        (0..4).for_each(|_| recorder.batch());
    }
    recorder
}

/// Reads a segment; returns the watermarks of its batches, and what stopped the reading.
fn read(recording: &Recording, segment: u64) -> (Vec<u64>, Option<Box<Damage>>) {
    let mut reader = match recording.read(segment) {
        Ok(reader) => reader,
        Err(StoreError::Damage(damage)) => return (Vec::new(), Some(damage)),
        Err(error) => panic!("{error}"),
    };
    let mut batch = Batch::new();
    let mut watermarks = Vec::new();
    loop {
        match reader.next(&mut batch) {
            Ok(Some(head)) => {
                assert!(batch.records().all(|record| record.at == head.mark.watermark));
                watermarks.push(head.mark.watermark.0);
            }
            Ok(None) => return (watermarks, None),
            Err(damage) => return (watermarks, Some(damage)),
        }
    }
}

fn segment_file(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segments/{number:08}.seg"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

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

/// A crash may leave any beginning of what was not flushed.
#[test]
fn every_beginning_of_a_segment_is_readable() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    recorder.store.flush().unwrap();
    let durable = recorder.store.segments()[2].bytes;
    recorder.batch();
    recorder.batch();
    drop(recorder);
    let file = segment_file(dir.path(), 2);
    let whole = fs::read(&file).unwrap();
    assert!((whole.len() as u64) > durable);
    let ends = record_ends(&whole);
    for len in 0..=whole.len() {
        fs::write(&file, &whole[..len]).unwrap();
        let recording = Recording::open(dir.path()).unwrap();
        let (watermarks, damage) = read(&recording, 2);
        let intact = ends.iter().filter(|end| **end <= len).count() as u64;
        assert_eq!(watermarks, (9..9 + intact).collect::<Vec<_>>(), "cut at {len}");
        assert_eq!(damage.is_some(), (len as u64) < durable, "cut at {len}");
        if let Some(damage) = damage {
            let named = matches!(damage.kind, DamageKind::Truncated { .. } | DamageKind::Header(_));
            assert!(named && damage.hint().is_some(), "cut at {len}: {damage}");
            assert_eq!(damage.batches, intact);
        }
        // What comes before is not touched by it.
        assert_eq!(read(&recording, 1).0, [5, 6, 7, 8]);
    }
}

/// The same, continued: the rest is cut away and the log goes on behind the last whole batch.
#[test]
fn every_beginning_that_a_crash_leaves_can_be_continued() {
    let dir = TempDir::new().unwrap();
    let original = dir.path().join("original");
    let mut recorder = Recorder::new(Store::create(&original, &header()).unwrap(), Term(1));
    recorder.store.flush().unwrap();
    (0..3).for_each(|_| recorder.batch());
    drop(recorder);
    let whole = fs::read(segment_file(&original, 0)).unwrap();
    let ends = record_ends(&whole);
    let head = whole.len() - (whole.len() - header_len(&whole));
    for len in (head..=whole.len()).step_by(7).chain(ends.iter().copied()) {
        let dir = dir.path().join(format!("cut-{len}"));
        copy(&original, &dir);
        fs::write(segment_file(&dir, 0), &whole[..len]).unwrap();
        fs::write(dir.join("segments/00000001.seg.tmp"), "half a header").unwrap();
        let intact = ends.iter().filter(|end| **end <= len).count() as u64;
        let mut recorder = Recorder::new(Store::open(&dir).unwrap(), Term(2));
        assert_eq!(recorder.at, Position(intact), "cut at {len}");
        recorder.batch();
        recorder.store.seal().unwrap();
        drop(recorder);
        let recording = Recording::open(&dir).unwrap();
        assert_eq!(read(&recording, 0).0, (1..=intact).collect::<Vec<_>>());
        assert_eq!(read(&recording, 1).0, [intact + 1]);
        assert!(recording.segments().iter().all(|segment| segment.sealed) && recording.damaged().is_empty());
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_named() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    recorder.store.seal().unwrap();
    drop(recorder);
    let file = segment_file(dir.path(), 1);
    let whole = fs::read(&file).unwrap();
    let ends = record_ends(&whole);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&file, &changed).unwrap();
        let recording = Recording::open(dir.path()).unwrap();
        let (watermarks, damage) = read(&recording, 1);
        let damage = damage.unwrap_or_else(|| panic!("byte {at}: nothing was noticed"));
        assert!(damage.offset <= at as u64, "byte {at}: {damage}");
        assert!(
            matches!(damage.kind, DamageKind::Changed { .. } | DamageKind::Header(_)),
            "byte {at}: {damage}"
        );
        assert_eq!(damage.file, file);
        let intact = ends.iter().filter(|end| **end <= at).count() as u64;
        assert_eq!((watermarks.len() as u64, damage.batches), (intact, intact), "byte {at}: {damage}");
        // Other segments can be read by themselves.
        assert_eq!(read(&recording, 0).0, [1, 2, 3, 4]);
        assert_eq!(read(&recording, 2).0, [9, 10, 11, 12]);
    }
}

#[test]
fn what_is_durable_and_damaged_is_not_continued() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    recorder.store.flush().unwrap();
    drop(recorder);
    let file = segment_file(dir.path(), 2);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    let StoreError::Damage(damage) = &error else { panic!("{error}") };
    assert_eq!((damage.segment, damage.last, damage.batches), (2, Position(11), 3));
    assert!(error.hint().is_some());
    // It was left as it is.
    assert_eq!(fs::read(&file).unwrap(), bytes);
    fs::remove_file(&file).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("missing"), "{error}");
    let recording = Recording::open(dir.path()).unwrap();
    assert!(matches!(read(&recording, 2).1.unwrap().kind, DamageKind::Missing));
    assert_eq!(recording.damaged().len(), 1);
}

#[test]
fn segments_of_other_recordings_and_other_places_are_refused() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    let mut recorder = recorded(&here);
    recorder.store.seal().unwrap();
    drop(recorder);
    let other = Header { vm: VmId([8; 16]), ..header() };
    drop(Recorder::new(Store::create(&there, &other).unwrap(), Term(1)));
    fs::copy(segment_file(&there, 0), segment_file(&here, 0)).unwrap();
    fs::copy(segment_file(&here, 2), segment_file(&here, 1)).unwrap();
    let recording = Recording::open(&here).unwrap();
    assert!(matches!(read(&recording, 0).1.unwrap().kind, DamageKind::Foreign { .. }));
    assert!(matches!(read(&recording, 1).1.unwrap().kind, DamageKind::Header(_)));
    assert_eq!(read(&recording, 2).0, [9, 10, 11, 12]);
    drop(recording);

    // A segment that is whole, but not the one that belongs there.
    let again = dir.path().join("again");
    let mut recorder = Recorder::new(Store::create(&again, &header()).unwrap(), Term(1));
    recorder.clients.frame();
    (0..4).for_each(|_| recorder.batch());
    recorder.segment(Term(1));
    (0..4).for_each(|_| recorder.batch());
    recorder.store.seal().unwrap();
    drop(recorder);
    fs::copy(segment_file(&again, 1), segment_file(&here, 1)).unwrap();
    fs::copy(segment_file(&again, 0), segment_file(&here, 0)).unwrap();
    fs::copy(segment_file(&here, 2), segment_file(&again, 1)).unwrap();
    let recording = Recording::open(&here).unwrap();
    let damage = read(&recording, 2).1.unwrap();
    assert!(matches!(damage.kind, DamageKind::Chain { previous: 1 }), "{damage}");
}

/// Nothing depends on the index alone.
#[test]
fn a_lost_index_is_rebuilt() {
    let dir = TempDir::new().unwrap();
    drop(recorded(dir.path()));
    let before = {
        let recording = Recording::open(dir.path()).unwrap();
        (recording.segments().to_vec(), recording.checkpoints().to_vec())
    };
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    for _ in 0..2 {
        let recording = Recording::open(dir.path()).unwrap();
        assert_eq!((recording.segments().to_vec(), recording.checkpoints().to_vec()), before);
    }
    drop(Store::open(dir.path()).unwrap());
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!(recording.checkpoints(), before.1);
    assert!(recording.segments().iter().all(|segment| segment.sealed));
}

/// sled's index of a recording that was closed. A thread of sled may have it open for a moment longer.
fn index(dir: &Path) -> sled::Db {
    loop {
        match sled::open(dir.join("index")) {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                thread::sleep(Duration::from_millis(1));
            }
            other => return other.unwrap(),
        }
    }
}

/// sled may lose entries without a word; what the segments say counts.
#[test]
fn what_the_index_forgot_is_found_again() {
    let dir = TempDir::new().unwrap();
    let mut recorder = recorded(dir.path());
    recorder.store.seal().unwrap();
    drop(recorder);
    let before = Recording::open(dir.path()).unwrap().checkpoints().to_vec();
    for (tree, key) in [("checkpoints", 9u64), ("segments", 1), ("segments", 2)] {
        let db = index(dir.path());
        assert!(db.open_tree(tree).unwrap().remove(key.to_be_bytes()).unwrap().is_some());
        drop(db);
        let recording = Recording::open(dir.path()).unwrap();
        assert_eq!(recording.checkpoints(), before);
        assert_eq!(recording.segments().len(), 3);
        assert!(recording.damaged().is_empty());
    }
}

/// sled refuses, or drops what it can't read; a recording is found whole all the same, or the index is named.
#[test]
fn a_damaged_index_is_repaired_or_named() {
    let dir = TempDir::new().unwrap();
    let original = dir.path().join("original");
    let mut recorder = recorded(&original);
    recorder.store.seal().unwrap();
    drop(recorder);
    let (segments, checkpoints) = {
        let recording = Recording::open(&original).unwrap();
        (recording.segments().to_vec(), recording.checkpoints().to_vec())
    };
    let mut random = synthetic::Random(11);
    for round in 0..60 {
        let dir = dir.path().join(format!("damaged-{round}"));
        copy(&original, &dir);
        let files: Vec<_> =
            fs::read_dir(dir.join("index")).unwrap().map(|entry| entry.unwrap().path()).collect();
        for file in files.iter().filter(|file| file.is_file() && (round % 2 == 0 || file.ends_with("db"))) {
            let mut bytes = fs::read(file).unwrap();
            // Most of sled's file is empty; the damage belongs where something stands.
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
            match round % 3 {
                0 => bytes[random.below(used) as usize] ^= 1 << random.below(8),
                1 => bytes.truncate(random.below(used) as usize),
                _ => {
                    let at = random.below(used) as usize;
                    let end = (at + 512).min(bytes.len());
                    bytes[at..end].fill(0);
                }
            }
            fs::write(file, bytes).unwrap();
        }
        match Recording::open(&dir) {
            Ok(recording) => {
                assert_eq!(recording.segments(), segments);
                assert_eq!(recording.checkpoints(), checkpoints);
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Index { .. }) && error.hint().is_some(), "{error}");
            }
        }
        fs::remove_dir_all(&dir).unwrap();
    }
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
    let error = recorder.store.append(&encoded.head, &batch, encoded.body).unwrap_err();
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
    let error = recorder.store.append(&encoded.head, &batch, encoded.body).unwrap_err();
    assert!(matches!(error, StoreError::NoSegment), "{error}");
    drop(recorder);
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!(read(&recording, gap.segment).0, [1001]);
    assert!(recording.damaged().is_empty());
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
fn a_changed_header_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(Store::create(dir.path(), &header()).unwrap());
    let file = dir.path().join("header");
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&file, changed).unwrap();
        let error = Recording::open(dir.path()).err().unwrap();
        assert!(matches!(error, StoreError::Header { .. }) && error.hint().is_some(), "byte {at}: {error}");
        fs::write(&file, &whole[..at]).unwrap();
        assert!(matches!(Recording::open(dir.path()).err().unwrap(), StoreError::Header { .. }));
    }
    let too_long = Header { machine: vec![0; (1 << 20) + 1], ..header() };
    let error = Store::create(&dir.path().join("other"), &too_long).err().unwrap();
    assert!(matches!(error, StoreError::HeaderTooLong { .. }), "{error}");
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

/// Fills a small file system: `mount -t tmpfs -o size=4m none DIR`, then
/// `ECHOVISOR_SMALL_FS=DIR cargo test -p echovisor-log --test store -- --ignored`.
#[test]
#[ignore = "needs a small file system"]
fn a_file_system_that_fills_up_keeps_what_was_written() {
    let small =
        PathBuf::from(std::env::var_os("ECHOVISOR_SMALL_FS").expect("the directory of a small file system"));
    let dir = small.join("recording");
    let mut recorder = Recorder::new(Store::create(&dir, &header()).unwrap(), Term(1));
    let ballast = small.join("ballast");
    let mut random = synthetic::Random(3);
    let mut kept = Vec::new();
    let (head, batch, body) = loop {
        let mut batch = Batch::new();
        let bytes: Vec<u8> = (0..4000).map(|_| random.next() as u8).collect();
        recorder.at = recorder.at.next();
        batch.push(recorder.at, Record::Event(Event::Entropy(&bytes))).unwrap();
        let mark = Mark { watermark: recorder.at, ..Mark::default() };
        let encoded = recorder.encoder.encode(&batch, mark).unwrap();
        if kept.len() == 10 {
            // All the space that is left, but for less than a batch.
            let mut filler = 1 << 24;
            let mut bytes = Vec::new();
            while filler > 1000 {
                bytes.resize(bytes.len() + filler, 1);
                if fs::write(&ballast, &bytes).is_err() {
                    bytes.truncate(bytes.len() - filler);
                    filler /= 2;
                }
            }
        }
        match recorder.store.append(&encoded.head, &batch, encoded.body) {
            Ok(()) => kept.push(recorder.at.0),
            Err(error) => {
                assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
                break (encoded.head, batch, encoded.body.to_vec());
            }
        }
    };
    let mut reader = recorder.store.read(0).unwrap();
    let mut found = Batch::new();
    for position in &kept {
        assert_eq!(reader.next(&mut found).unwrap().unwrap().mark.watermark.0, *position);
    }
    assert!(reader.next(&mut found).unwrap().is_none() && reader.torn().is_none());
    fs::remove_file(&ballast).unwrap();
    recorder.store.append(&head, &batch, &body).unwrap();
    recorder.store.seal().unwrap();
    drop(recorder);
    kept.push(head.mark.watermark.0);
    assert_eq!(read(&Recording::open(&dir).unwrap(), 0).0, kept);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random bytes as header or segment: refused, whatever they are.
    #[test]
    fn random_files_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), keep in 0usize..200) {
        let dir = TempDir::new().unwrap();
        let mut recorder = recorded(dir.path());
        recorder.store.seal().unwrap();
        drop(recorder);
        let file = segment_file(dir.path(), 1);
        let mut changed = fs::read(&file).unwrap();
        changed.truncate(keep);
        changed.extend(&bytes);
        fs::write(&file, changed).unwrap();
        let recording = Recording::open(dir.path()).unwrap();
        prop_assert!(read(&recording, 1).1.is_some());
        prop_assert_eq!(read(&recording, 2).0, [9, 10, 11, 12]);
        drop(recording);
        fs::write(dir.path().join("header"), &bytes).unwrap();
        prop_assert!(Recording::open(dir.path()).is_err());
    }
}

/// Length of a segment file's header: its envelope says it.
fn header_len(file: &[u8]) -> usize {
    48 + u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize
}

/// Where the batches of a segment's file end.
fn record_ends(file: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = header_len(file);
    while at < file.len() {
        let len = u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        if len >> 31 == 1 {
            break;
        }
        at += 24 + len as usize;
        ends.push(at);
    }
    ends
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
