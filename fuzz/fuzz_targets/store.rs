//! Page stores: the packs, manifests and index that lie in a directory.
//!
//! Each part of the input is one thing of the store; its first byte says which.

#![no_main]

use std::{fs, path::Path};

use echovisor_event::{Nanos, Position, limits::MEMORY_MIN};
use echovisor_fuzz::{guest::Guest, labelled, parts, stored};
use echovisor_machine::{
    MachineState, Memory, Trail,
    cpu::{CpuState, scripted::ScriptedState},
};
use echovisor_snapshot::{
    PageDigests, state_digest,
    store::{PageStore, STORE_VERSION, SnapshotParts, Snapshots, StoreError},
};
use libfuzzer_sys::fuzz_target;

/// The kinds of parts; see [`lay_out`].
const MANIFEST: u8 = 0;
const OBJECT: u8 = 1;
const RECORD: u8 = 2;
const BYTES: u8 = 3;
const PACK: u8 = 4;
const INDEX: [(u8, &str, usize); 2] = [(5, "objects", 32), (6, "packs", 8)];

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let indexed = lay_out(dir.path(), data);
    read(dir.path());
    let Ok(mut store) = PageStore::open(dir.path()) else { return };
    // Whatever lies there, what is written now is whole; unless an index that fits the packs says that it is there already.
    if indexed {
        return;
    }
    let memory = Memory::new(MEMORY_MIN).expect("memory for a guest");
    memory.write_page(1, &[7; 4096]);
    let state = MachineState {
        position: Position(1 << 40),
        trail: Trail(1),
        clock: Nanos(1),
        idle: None,
        powered_off: None,
        cpu: CpuState::Scripted(ScriptedState { pc: 0, registers: Default::default() }),
        devices: Guest::new().devices.save(),
    };
    let digests = PageDigests::of(&memory);
    let parts = SnapshotParts { state: &state, digests: &digests, taken: 0, segment: 0 };
    store.write(&parts, &memory).expect("it can be written");
    let (_, found) = store.snapshots().load(state.position, &memory).expect("it can be loaded");
    assert_eq!(found, digests);
    drop(store);
    read(dir.path());
});

/// Writes the files that the input tells. Whether there is an index among them.
fn lay_out(dir: &Path, data: &[u8]) -> bool {
    for name in ["packs", "manifests"] {
        fs::create_dir_all(dir.join(name)).expect("a directory");
    }
    let mut index: Option<sled::Db> = None;
    let (mut number, mut pack) = (0, stored::PACK.to_vec());
    let flush = |number: u8, pack: &[u8]| {
        fs::write(dir.join(format!("packs/{number:08}.pack")), pack).expect("a file");
    };
    for (kind, rest) in parts(data).filter_map(<[u8]>::split_first) {
        let Some((first, body)) = rest.split_first() else { continue };
        match *kind {
            MANIFEST => {
                let path = dir.join(format!("manifests/{first:020}.snapshot"));
                fs::write(path, labelled(b"ECHOSNAP", STORE_VERSION, body)).expect("a file");
            }
            OBJECT => pack.extend(stored::object(*first, body)),
            RECORD => {
                let Some((digest, body)) = body.split_first_chunk() else { continue };
                pack.extend(stored::record(first & 0x7f, first >> 7, digest, body));
            }
            BYTES => pack.extend(rest),
            PACK => {
                flush(number, &pack);
                (number, pack) = (*first, stored::PACK.to_vec());
            }
            kind => {
                let Some((_, tree, key)) = INDEX.iter().find(|(known, ..)| *known == kind) else { continue };
                let index = index.get_or_insert_with(|| {
                    let config = sled::Config::new().path(dir.join("index")).flush_every_ms(None);
                    config.open().expect("an index")
                });
                let (key, value) = rest.split_at(rest.len().min(*key));
                index.open_tree(tree).expect("a tree").insert(key, value).expect("an entry");
            }
        }
    }
    flush(number, &pack);
    index.is_some()
}

/// Reads all that there is.
fn read(dir: &Path) {
    let snapshots = Snapshots::open(dir).expect("damage is no reason not to open it");
    let told = snapshots.verify().expect("files that can be read");
    told.iter().for_each(|damage| drop((damage.to_string(), damage.hint().map(str::to_owned))));
    for manifest in snapshots.list().iter().filter(|manifest| manifest.memory == MEMORY_MIN) {
        let memory = Memory::new(MEMORY_MIN).expect("memory for a guest");
        let named = told.iter().any(|damage| damage.snapshots.contains(&manifest.position));
        match snapshots.load(manifest.position, &memory) {
            Ok((state, _)) => {
                assert!(!named, "{told:?}");
                assert_eq!(state_digest(&memory, &state), manifest.digest);
            }
            Err(StoreError::Damage(damage)) => assert!(named, "{damage}"),
            Err(error) => panic!("{error}"),
        }
    }
}
