//! Which snapshots go, and what becomes of the space.

mod scratch;
mod state;

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use echovisor_event::Position;
use echovisor_snapshot::store::{Keep, PageStore, Snapshots};
use proptest::prelude::*;
use scratch::{Guest, TAKEN, newest};

/// What the packs take of the disk, bytes.
fn used(dir: &Path) -> u64 {
    fs::read_dir(dir.join("packs"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512)
        .sum()
}

fn positions(snapshots: &Snapshots) -> Vec<u64> {
    snapshots.list().iter().map(|manifest| manifest.position.0).collect()
}

#[test]
fn the_newest_the_young_and_the_oldest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    let mut store = PageStore::open(folder.path()).unwrap();
    let now = TAKEN + 100;
    let mut left = |keep: Keep| {
        // Each is taken a second after the one before.
        for position in 90..=100 {
            guest.snapshot(&mut store, position);
        }
        store.retain(&keep, now).unwrap();
        (positions(store.snapshots()), store.snapshots().list().first().map(|first| first.position))
    };
    let age = |seconds| Some(Duration::from_secs(seconds));
    let all: Vec<u64> = (90..=100).collect();
    assert_eq!(left(Keep::default()).0, all);
    assert_eq!(left(newest(3)).0, [98, 99, 100]);
    assert_eq!(left(newest(0)).0, [100], "the newest is never removed");
    assert_eq!(left(Keep { age: age(0), ..Keep::default() }).0, [100]);
    assert_eq!(left(Keep { age: age(4), ..Keep::default() }).0, [96, 97, 98, 99, 100]);
    assert_eq!(
        left(Keep { age: age(4), count: Some(7), oldest: false }).0,
        all[4..],
        "either is reason enough"
    );
    assert_eq!(left(Keep { oldest: true, ..newest(2) }), (vec![90, 99, 100], Some(Position(90))));
    drop(store);
    assert_eq!(positions(&Snapshots::open(folder.path()).unwrap()), [90, 99, 100], "it is on the disk");
}

#[test]
fn space_is_really_freed() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    let mut store = PageStore::open(folder.path()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    // What does not compress, and is in one snapshot only.
    for position in 1..=4 {
        for page in 0..500 {
            let mut content = [0; 4096];
            random.fill(&mut content);
            guest.memory.write_page(page, &content);
        }
        guest.snapshot(&mut store, position);
    }
    let before = used(folder.path());
    let freed = store.retain(&newest(1), 0).unwrap();
    let after = used(folder.path());
    assert_eq!(freed.snapshots, [1, 2, 3].map(Position));
    assert!(
        after < before * 3 / 10 && before - after >= freed.bytes - 4096,
        "{before} -> {after}, {freed:?}"
    );
    guest.check(store.snapshots(), 4);
    guest.fill(&[3], 3);
    assert_eq!(guest.snapshot(&mut store, 5).new_pages, 1, "what was moved is still known");
    drop(store);
    // Without an index it is the same.
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let mut store = PageStore::open(folder.path()).unwrap();
    guest.snapshot(&mut store, 6);
    for position in 4..=6 {
        guest.check(store.snapshots(), position);
    }
    assert!(store.verify().unwrap().is_empty());
}

/// Objects that nobody needs may still lie in a pack, and what they need be gone: an index that is made anew must not rely on
/// them.
#[test]
fn what_was_removed_by_half_is_not_relied_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    guest.fill(&[1, 2, 3], 1);
    let mut store = PageStore::open(folder.path()).unwrap();
    guest.snapshot(&mut store, 1);
    drop(store);
    let first = folder.path().join("packs/00000000.pack");
    let kept = fs::read(&first).unwrap();
    // A pack in which everything but the nodes is gone: its pages' kind is none.
    let mut bytes = kept.clone();
    let mut at = 16;
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        if bytes[at] == 1 {
            bytes[at] = 0xff;
        }
        at += 48 + len;
    }
    fs::write(&first, &bytes).unwrap();
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    fs::remove_file(folder.path().join("manifests/00000000000000000001.snapshot")).unwrap();
    let mut store = PageStore::open(folder.path()).unwrap();
    assert_eq!(guest.snapshot(&mut store, 2).new_pages, 4);
    guest.check(store.snapshots(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is removed, what stays is whole.
    #[test]
    fn what_stays_is_whole(
        steps in prop::collection::vec((prop::collection::vec((0_usize..2048, 0_u8..9), 0..40), 0_usize..5), 1..10),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut guest = Guest::new();
        let mut store = PageStore::open(folder.path()).unwrap();
        let mut expected = BTreeSet::new();
        for (position, (writes, keep)) in steps.iter().enumerate() {
            writes.iter().for_each(|(page, byte)| guest.fill(&[*page], *byte));
            guest.snapshot(&mut store, position as u64);
            expected.insert(position as u64);
            if *keep > 0 {
                store.retain(&newest(*keep), 0).unwrap();
                while expected.len() > *keep {
                    expected.pop_first();
                }
            }
        }
        prop_assert_eq!(positions(store.snapshots()), expected.iter().copied().collect::<Vec<_>>());
        prop_assert!(store.verify().unwrap().is_empty());
        drop(store);
        let store = PageStore::open(folder.path()).unwrap();
        expected.iter().for_each(|position| guest.check(store.snapshots(), *position));
    }
}
