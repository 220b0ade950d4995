//! Recordings that are torn or damaged: what is whole is found, and what is not is named.

mod recordings;
mod synthetic;

use std::{fs, path::Path, thread, time::Duration};

use echovisor_event::{Position, Term, VmId};
use echovisor_log::store::{DamageKind, Header, Recording, Store, StoreError};
use proptest::prelude::*;
use recordings::{Recorder, copy, header, header_len, read, record_ends, recorded, segment_file};
use tempfile::TempDir;

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
