//! The digest of a whole state.

use std::ops::Range;

pub(crate) use echovisor_event::limits::FAN_OUT;
use echovisor_event::{Digest, limits::PAGE_SIZE};
use echovisor_machine::{MachineState, Memory, PageSet};

/// What keeps a node's digest apart from a page's.
const NODE: &str = "echovisor page tree node 1";

/// The BLAKE3 digests of all pages of a guest, as a tree whose root stands for the memory's whole content.
///
/// A leaf is the digest of a page; a node is the digest of its children's digests. Pages are addressed by their digest
/// wherever they are kept, and two trees show in which pages two memories differ without comparing the pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageDigests {
    /// Level 0 are the leaves; the last level is the root alone.
    levels: Vec<Vec<Digest>>,
}

impl PageDigests {
    /// Reads all of `memory`. The guest must not run meanwhile.
    #[must_use]
    pub fn of(memory: &Memory) -> PageDigests {
        let mut digests = PageDigests::of_zeros(memory.pages());
        digests.update(memory, &PageSet::all(memory.pages()));
        digests
    }

    /// The digests of that many pages of zeros.
    #[must_use]
    pub fn of_zeros(pages: usize) -> PageDigests {
        PageDigests::from_leaves(vec![of_zero_page(); pages])
    }

    /// Reads the pages of `memory` that have `changed`, and brings what depends on them up to date. If the guest runs meanwhile,
    /// the pages that it writes must be read again.
    pub fn update(&mut self, memory: &Memory, changed: &PageSet) {
        self.update_with(changed, |index, page| memory.read_page(index, page));
    }

    /// As [`PageDigests::update`], from wherever `read` has the pages.
    pub(crate) fn update_with(
        &mut self,
        changed: &PageSet,
        mut read: impl FnMut(usize, &mut [u8; PAGE_SIZE]),
    ) {
        let zero = of_zero_page();
        let mut page = [0; PAGE_SIZE];
        // The nodes above the changed ones, rising and each once.
        let mut parents = Vec::new();
        for index in changed.iter() {
            read(index, &mut page);
            // Most pages of most guests are zero, and comparing is faster than hashing.
            let digest = if is_zero(&page) { zero } else { hash(&page) };
            if self.levels[0][index] != digest {
                self.levels[0][index] = digest;
                parents.push(index / FAN_OUT);
            }
        }
        for level in 1..self.levels.len() {
            parents.dedup();
            let (below, above) = self.levels.split_at_mut(level);
            let children = &below[level - 1];
            for index in &mut parents {
                let first = *index * FAN_OUT;
                above[0][*index] = node(&children[first..(first + FAN_OUT).min(children.len())]);
                *index /= FAN_OUT;
            }
        }
    }

    fn from_leaves(leaves: Vec<Digest>) -> PageDigests {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let level = below.chunks(FAN_OUT).map(node).collect();
            levels.push(level);
        }
        PageDigests { levels }
    }

    /// The digest that stands for all pages.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// The digest of a machine's whole state, whose RAM these are the digests of.
    #[must_use]
    pub fn state_digest(&self, state: &MachineState) -> Digest {
        combine(self.root(), state)
    }

    /// The digests of the pages, in order.
    #[must_use]
    pub fn pages(&self) -> &[Digest] {
        &self.levels[0]
    }

    /// How many levels the tree has: level 0 are the pages, the last one is the root alone.
    #[must_use]
    pub fn height(&self) -> usize {
        self.levels.len()
    }

    /// The digests of a level, in order.
    ///
    /// # Panics
    /// If the tree is not so high.
    #[must_use]
    pub fn level(&self, level: usize) -> &[Digest] {
        &self.levels[level]
    }

    /// The places of a node's children in the level below.
    ///
    /// # Panics
    /// If the tree is not so high, or `level` is that of the pages.
    #[must_use]
    pub fn children(&self, level: usize, index: usize) -> Range<usize> {
        let below = self.levels[level - 1].len();
        (index * FAN_OUT).min(below)..((index + 1) * FAN_OUT).min(below)
    }

    /// A tree whose nodes are known to fit their children.
    pub(crate) fn from_levels(levels: Vec<Vec<Digest>>) -> PageDigests {
        PageDigests { levels }
    }

    /// The indices of the pages in which two memories of the same size differ, walking only the parts of the tree that do.
    #[must_use]
    pub fn differences(&self, other: &PageDigests) -> Vec<usize> {
        if self.levels.len() != other.levels.len() || self.pages().len() != other.pages().len() {
            return (0..self.pages().len().max(other.pages().len())).collect();
        }
        let mut suspects = vec![0];
        for level in (0..self.levels.len()).rev() {
            let (ours, theirs) = (&self.levels[level], &other.levels[level]);
            suspects.retain(|index: &usize| ours.get(*index) != theirs.get(*index));
            if level > 0 {
                let below = self.levels[level - 1].len();
                let children = |index: usize| index * FAN_OUT..((index + 1) * FAN_OUT).min(below);
                suspects = suspects.into_iter().flat_map(children).collect();
            }
        }
        suspects
    }
}

/// The digest of a machine's whole state: RAM, processor and devices. Two machines with the same digest do the same from
/// here on.
#[must_use]
pub fn state_digest(memory: &Memory, state: &MachineState) -> Digest {
    combine(PageDigests::of(memory).root(), state)
}

/// The digest of a state whose memory has this root.
pub(crate) fn combine(memory: Digest, state: &MachineState) -> Digest {
    let state = rkyv::to_bytes::<rkyv::rancor::Error>(&state.canonical()).expect("plain data serialises");
    let mut hasher = blake3::Hasher::new_derive_key("echovisor state digest 1");
    hasher.update(&memory.0).update(&state);
    Digest(*hasher.finalize().as_bytes())
}

/// The digest of a node, whose children's digests these bytes are.
pub(crate) fn node_of(children: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(NODE);
    Digest(*hasher.update(children).finalize().as_bytes())
}

/// The digest of a page that holds nothing.
pub(crate) fn of_zero_page() -> Digest {
    hash(&[0; PAGE_SIZE])
}

/// The digest of a node with these children.
pub(crate) fn node(children: &[Digest]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(NODE);
    for child in children {
        hasher.update(&child.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The digest of a page.
pub(crate) fn hash(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Whether a page holds nothing.
pub(crate) fn is_zero(page: &[u8; PAGE_SIZE]) -> bool {
    let (words, []) = page.as_chunks::<16>() else { return false };
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0)
}
