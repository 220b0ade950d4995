//! Snapshots go into a store and come back, whatever happens to it in between.

mod scratch;
mod state;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use echovisor_event::{
    Digest, Position,
    limits::{MEMORY_MIN, PAGE_SIZE},
};
use echovisor_machine::{MachineConfig, Memory, PageSet, cpu::scripted::ScriptedCpu};
use echovisor_snapshot::{
    PageDigests,
    store::{PageSource, PageStore, STORE_VERSION, Snapshots, StoreError},
};
use proptest::prelude::*;
use scratch::{Guest, parts};
use state::{DEVICES, memory};

#[test]
fn a_snapshot_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    guest.fill(&[1, 2, 700, 2047], 7);
    let mut store = PageStore::open(folder.path()).unwrap();
    let written = guest.snapshot(&mut store, 5);
    // Four pages and the page of zeros; the root, three different nodes with something in them, and the one of zeros.
    assert_eq!((written.new_pages, written.new_nodes), (5, 5));
    drop(store);

    let snapshots = Snapshots::open(folder.path()).unwrap();
    let [manifest] = *snapshots.list() else { panic!("one snapshot") };
    assert_eq!((manifest.position, manifest.memory, manifest.segment), (Position(5), MEMORY_MIN, 1005));
    guest.check(&snapshots, 5);
    let config = MachineConfig {
        memory: MEMORY_MIN,
        mac: DEVICES.mac,
        mtu: 1500,
        guest: "test".into(),
        arguments: String::new(),
        program: Digest::default(),
    };
    let cpu = |memory: &Memory| Ok(ScriptedCpu::new(memory.clone(), 0));
    let machine = snapshots.restore(Position(5), &config, cpu).unwrap();
    assert_eq!(machine.save().unwrap(), guest.state(5));
    let other = MachineConfig { memory: 2 * MEMORY_MIN, ..config };
    assert!(snapshots.restore(Position(5), &other, cpu).is_err());
}

#[test]
fn what_has_not_changed_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    guest.fill(&(0..1000).collect::<Vec<_>>(), 1);
    let mut store = PageStore::open(folder.path()).unwrap();
    guest.snapshot(&mut store, 1);
    guest.fill(&[999], 2);
    let written = guest.snapshot(&mut store, 2);
    assert_eq!((written.new_pages, written.new_nodes), (1, 2), "the page, the node above it and the root");
    assert_eq!(guest.snapshot(&mut store, 2).new_bytes, 0, "all of it is there");
    guest.fill(&[999], 1);
    assert_eq!(guest.snapshot(&mut store, 3).new_pages, 0, "the page is as it was before");
    for position in 1..=3 {
        guest.check(store.snapshots(), position);
    }
}

/// Whoever writes a snapshot may have nothing but the pages that have changed since the last one.
#[test]
fn only_what_is_missing_is_asked_for() {
    struct Changed<'a>(&'a Memory, PageSet);
    impl PageSource for Changed<'_> {
        fn read_page(&self, index: usize, page: &mut [u8; PAGE_SIZE]) -> bool {
            self.0.read_page(index, page);
            self.1.contains(index)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    guest.fill(&(0..100).collect::<Vec<_>>(), 1);
    let mut store = PageStore::open(folder.path()).unwrap();
    guest.snapshot(&mut store, 1);
    guest.fill(&[5, 50, 500], 2);
    let mut changed = PageSet::none(guest.memory.pages());
    [5, 50].into_iter().for_each(|page| changed.insert(page));
    let digests = PageDigests::of(&guest.memory);
    let state = guest.state(2);
    let lacking = Changed(&guest.memory, changed.clone());
    let refused = store.write(&parts(&state, &digests), &lacking);
    assert!(matches!(refused, Err(StoreError::PageMissing { page: 500 })), "{refused:?}");
    assert_eq!(store.snapshots().list().len(), 1);
    changed.insert(500);
    store.write(&parts(&state, &digests), &Changed(&guest.memory, changed)).unwrap();
    guest.remember(2);
    guest.check(store.snapshots(), 2);
}

#[test]
fn a_page_that_changed_after_its_digest_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    guest.fill(&[3], 1);
    let digests = PageDigests::of(&guest.memory);
    guest.fill(&[3], 2);
    let mut store = PageStore::open(folder.path()).unwrap();
    let state = guest.state(1);
    let refused = store.write(&parts(&state, &digests), &guest.memory);
    assert!(matches!(refused, Err(StoreError::PageChanged { page: 3 })), "{refused:?}");
    guest.snapshot(&mut store, 1);
    drop(store);
    guest.check(&Snapshots::open(folder.path()).unwrap(), 1);
}

#[test]
fn the_nearest_snapshot_is_the_last_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    let mut store = PageStore::open(folder.path()).unwrap();
    assert_eq!(store.snapshots().nearest(Position(9)), None);
    for position in [20, 5, 10] {
        guest.snapshot(&mut store, position);
    }
    let nearest = |position| store.snapshots().nearest(Position(position)).map(|found| found.position.0);
    assert_eq!([4, 5, 9, 10, 19, 1000].map(nearest), [None, Some(5), Some(5), Some(10), Some(10), Some(20)]);
    let none = store.snapshots().load(Position(6), &memory());
    assert!(matches!(none, Err(StoreError::NoSnapshot { position: Position(6) })));
}

#[test]
fn one_writes_or_many_read_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    assert!(matches!(Snapshots::open(&dir), Err(StoreError::NoStore { .. })));
    let mut guest = Guest::new();
    let mut store = PageStore::open(&dir).unwrap();
    guest.snapshot(&mut store, 1);
    assert!(matches!(PageStore::open(&dir), Err(StoreError::InUse { .. })));
    assert!(matches!(Snapshots::open(&dir), Err(StoreError::InUse { .. })));
    drop(store);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&dir), mode(&dir.join("packs")), mode(&dir.join("manifests"))], [0o700; 3]);
    for file in [dir.join("packs/00000000.pack"), dir.join("manifests/00000000000000000001.snapshot")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }

    // The second one finds the index taken, and does without.
    let readers = [Snapshots::open(&dir).unwrap(), Snapshots::open(&dir).unwrap()];
    readers.iter().for_each(|snapshots| guest.check(snapshots, 1));
    assert!(matches!(PageStore::open(&dir), Err(StoreError::InUse { .. })));
}

/// Whoever closed a store may be done while a thread of sled still has the index. Who opens it meanwhile is not refused.
#[test]
fn an_index_that_is_being_closed_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    drop(PageStore::open(dir).unwrap());
    let held = loop {
        if let Ok(held) = sled::open(dir.join("index")) {
            break held;
        }
        thread::sleep(Duration::from_millis(1));
    };
    let left = dir.join("manifests/left.tmp");
    fs::write(&left, []).unwrap();
    thread::scope(|scope| {
        let opener = scope.spawn(|| PageStore::open(dir).map(drop));
        // That is done with the store's lock in hand, before the index.
        while left.exists() {
            assert!(!opener.is_finished(), "it did not come so far");
            thread::sleep(Duration::from_millis(1));
        }
        drop(held);
        opener.join().unwrap().unwrap();
    });
}

#[test]
fn an_index_that_is_lost_or_old_is_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let mut guest = Guest::new();
    guest.fill(&[1, 100, 1000], 1);
    let mut store = PageStore::open(folder.path()).unwrap();
    guest.snapshot(&mut store, 1);
    drop(store);
    let old = folder.path().join("old");
    fs::rename(&index, &old).unwrap();
    guest.check(&Snapshots::open(folder.path()).unwrap(), 1);

    let _ = fs::remove_dir_all(&index);
    let mut store = PageStore::open(folder.path()).unwrap();
    guest.fill(&[1, 2000], 2);
    assert_eq!(guest.snapshot(&mut store, 2).new_pages, 2, "what is in the packs is known again");
    drop(store);

    fs::remove_dir_all(&index).unwrap();
    fs::rename(&old, &index).unwrap();
    let mut store = PageStore::open(folder.path()).unwrap();
    assert_eq!(guest.snapshot(&mut store, 3).new_pages, 0);
    drop(store);
    let snapshots = Snapshots::open(folder.path()).unwrap();
    (1..=3).for_each(|position| guest.check(&snapshots, position));
}

/// If this fails, what older releases wrote cannot be read any more, or they cannot read what this one writes: raise
/// `STORE_VERSION`, then `ECHOVISOR_BLESS=1 cargo test -p echovisor-snapshot --test store`.
///
/// Bodies are not compared compressed, since a newer zstd may compress differently: their addresses stand for them.
#[test]
fn the_format_is_that_of_its_version() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{STORE_VERSION}"));
    let files = [
        ("packs/00000000.pack", "store.pack"),
        ("manifests/00000000000000000007.snapshot", "store.snapshot"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (written, kept) = (folder.path().join("written"), folder.path().join("kept"));
    let mut guest = Guest::new();
    guest.fill(&[1, 2, 700, 2047], 7);
    guest.snapshot(&mut PageStore::open(&written).unwrap(), 7);
    for (path, name) in files {
        if std::env::var_os("ECHOVISOR_BLESS").is_some() {
            fs::copy(written.join(path), golden.join(name)).unwrap();
        }
        fs::create_dir_all(kept.join(path).parent().unwrap()).unwrap();
        fs::copy(golden.join(name), kept.join(path)).unwrap();
    }
    let snapshots = Snapshots::open(&kept).unwrap();
    guest.check(&snapshots, 7);
    assert_eq!(snapshots.verify().unwrap().len(), 0);
    let [pack, manifest] =
        files.map(|(path, _)| [&written, &kept].map(|dir| fs::read(dir.join(path)).unwrap()));
    assert_eq!(manifest[0], manifest[1]);
    let [written, kept] = pack.each_ref().map(|pack| records(pack));
    assert_eq!(written, kept);
}

#[test]
fn it_is_told_what_each_snapshot_holds_and_what_it_alone_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    guest.fill(&[0, 1, 100, 1000], 1);
    let mut store = PageStore::open(folder.path()).unwrap();
    let first = guest.snapshot(&mut store, 1);
    let alone = store.snapshots().shares().unwrap().remove(0).unwrap();
    assert_eq!((alone.pages, alone.new_pages, alone.own_bytes), (4, 4, first.new_bytes));
    guest.fill(&[1, 2000], 2);
    let second = guest.snapshot(&mut store, 2);
    let shares: Vec<_> = store.snapshots().shares().unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!((shares[0].pages, shares[0].new_pages), (4, 4));
    assert!(shares[0].own_bytes < alone.own_bytes, "{shares:?}");
    assert_eq!((shares[1].pages, shares[1].new_pages, shares[1].own_bytes), (5, 2, second.new_bytes));
    let header = 16;
    assert_eq!(store.snapshots().stored_bytes().unwrap(), header + first.new_bytes + second.new_bytes);
}

/// The header of a pack, and the kinds and addresses of its records.
fn records(pack: &[u8]) -> (&[u8], Vec<(u8, &[u8])>) {
    let (mut at, mut records) = (16, Vec::new());
    while at < pack.len() {
        records.push((pack[at], &pack[at + 8..at + 40]));
        at += 48 + u32::from_le_bytes(pack[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    (&pack[..16], records)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever changes between snapshots, and wherever the store is closed and opened, each comes back as it was.
    #[test]
    fn every_snapshot_comes_back(
        steps in prop::collection::vec((prop::collection::vec((0_usize..2048, 0_u8..4), 0..30), any::<bool>()), 1..8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut guest = Guest::new();
        let mut store = PageStore::open(folder.path()).unwrap();
        for (position, (writes, again)) in steps.iter().enumerate() {
            writes.iter().for_each(|(page, byte)| guest.fill(&[*page], *byte));
            guest.snapshot(&mut store, position as u64);
            if *again {
                drop(store);
                store = PageStore::open(folder.path()).unwrap();
            }
        }
        prop_assert!(store.verify().unwrap().is_empty());
        drop(store);
        let snapshots = Snapshots::open(folder.path()).unwrap();
        prop_assert_eq!(snapshots.list().len(), steps.len());
        (0..steps.len()).for_each(|position| guest.check(&snapshots, position as u64));
    }
}
