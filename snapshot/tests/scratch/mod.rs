//! A guest that is only memory, and remembers what was taken of it.

use std::collections::BTreeMap;

use echovisor_event::{Position, limits::PAGE_SIZE};
use echovisor_machine::{MachineState, Memory};
use echovisor_snapshot::{
    PageDigests, state_digest,
    store::{Keep, PageStore, SnapshotParts, Snapshots, Written},
};

use crate::state::{memory, scripted};

/// When the snapshot at position 0 is taken; each position later it is a second later.
pub(crate) const TAKEN: u64 = 1_000_000;

pub(crate) struct Guest {
    pub(crate) memory: Memory,
    /// The digests of the pages, by position.
    taken: BTreeMap<u64, PageDigests>,
}

impl Guest {
    pub(crate) fn new() -> Guest {
        Guest { memory: memory(), taken: BTreeMap::new() }
    }

    /// Fills pages with a byte; with anything but 0, each page has a content of its own.
    pub(crate) fn fill(&mut self, pages: &[usize], byte: u8) {
        for page in pages {
            let mut content = [byte; PAGE_SIZE];
            if byte != 0 {
                content[..8].copy_from_slice(&(*page as u64).to_le_bytes());
            }
            self.memory.write_page(*page, &content);
        }
    }

    /// The rest of its state, which depends on the position only.
    pub(crate) fn state(&self, position: u64) -> MachineState {
        MachineState { position: Position(position), ..scripted() }
    }

    pub(crate) fn remember(&mut self, position: u64) -> &PageDigests {
        let digests = PageDigests::of(&self.memory);
        self.taken.entry(position).insert_entry(digests).into_mut()
    }

    pub(crate) fn snapshot(&mut self, store: &mut PageStore, position: u64) -> Written {
        let state = self.state(position);
        let memory = self.memory.clone();
        store.write(&parts(&state, self.remember(position)), &memory).expect("it can be written")
    }

    /// A snapshot can be loaded, and is what it was.
    pub(crate) fn check(&self, snapshots: &Snapshots, position: u64) {
        // Loading does not rely on an empty memory.
        let memory = memory();
        memory.write_page(17, &[0xaa; PAGE_SIZE]);
        let (state, digests) = snapshots.load(Position(position), &memory).expect("it can be loaded");
        assert_eq!(state, self.state(position));
        assert_eq!(digests, self.taken[&position]);
        assert_eq!(PageDigests::of(&memory), digests);
        let manifest = snapshots.nearest(Position(position)).expect("it is there");
        assert_eq!(manifest.digest, state_digest(&memory, &state));
    }
}

/// What a snapshot is written from.
pub(crate) fn parts<'a>(state: &'a MachineState, digests: &'a PageDigests) -> SnapshotParts<'a> {
    SnapshotParts { state, digests, taken: TAKEN + state.position.0, segment: 1000 + state.position.0 }
}

/// Keeps so many.
#[allow(dead_code, reason = "not every test file removes any")]
pub(crate) fn newest(count: usize) -> Keep {
    Keep { count: Some(count), ..Keep::default() }
}
