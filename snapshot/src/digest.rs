//! The digest of a whole state.

use echovisor_event::{Digest, limits::PAGE_SIZE};
use echovisor_machine::{MachineState, Memory};

/// How many children a node of the tree has. A level is 1/64 of the one below, so that the whole tree costs little more than
/// its leaves.
const FAN_OUT: usize = 64;

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
        let zero = hash(&[0; PAGE_SIZE]);
        let mut page = [0; PAGE_SIZE];
        let leaves = (0..memory.pages()).map(|index| {
            memory.read_page(index, &mut page);
            // Most pages of most guests are zero, and comparing is faster than hashing.
            if is_zero(&page) { zero } else { hash(&page) }
        });
        PageDigests::from_leaves(leaves.collect())
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

    /// The digests of the pages, in order.
    #[must_use]
    pub fn pages(&self) -> &[Digest] {
        &self.levels[0]
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
fn combine(memory: Digest, state: &MachineState) -> Digest {
    let state = rkyv::to_bytes::<rkyv::rancor::Error>(&state.canonical()).expect("plain data serialises");
    let mut hasher = blake3::Hasher::new_derive_key("echovisor state digest 1");
    hasher.update(&memory.0).update(&state);
    Digest(*hasher.finalize().as_bytes())
}

fn node(children: &[Digest]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("echovisor page tree node 1");
    for child in children {
        hasher.update(&child.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn hash(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Whether a page holds nothing.
pub(crate) fn is_zero(page: &[u8; PAGE_SIZE]) -> bool {
    let (words, []) = page.as_chunks::<16>() else { return false };
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0)
}
