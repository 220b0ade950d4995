//! A state that is kept while its machine runs on, to go back to.

use echovisor_event::{Digest, Position};
use echovisor_machine::{MachineState, Memory, PageSet};

use crate::{contents::Contents, digest::PageDigests};

/// The last state of a machine that was confirmed, apart from the machine, which runs on. It costs memory for the guest's pages
/// that are not zero.
///
/// At a checkpoint the pages that have changed since the one before are [staged](Retained::stage). They become part of the state
/// when that is [confirmed](Retained::confirm), be it at once or after the machine has run on.
#[derive(Debug)]
pub struct Retained {
    state: MachineState,
    digest: Digest,
    contents: Contents,
    staged: Option<(MachineState, Contents)>,
}

/// What was kept is not what was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state that was kept from position {at} has digest {found}, not {expected}: its memory is bad")]
pub struct Spoilt {
    /// Where it was kept.
    pub at: Position,
    /// As confirmed.
    pub expected: Digest,
    /// As it is.
    pub found: Digest,
}

impl Retained {
    /// Keeps a machine's state as it is, which is confirmed to have this digest. Copies all pages that are not zero.
    #[must_use]
    pub fn new(memory: &Memory, state: MachineState, digest: Digest) -> Retained {
        let mut contents = Contents::new(memory.pages(), false);
        contents.copy(memory, &PageSet::all(memory.pages()));
        Retained { state, digest, contents, staged: None }
    }

    /// Copies what has `changed` since the last call. The machine stands in this state, which is not confirmed yet.
    pub fn stage(&mut self, memory: &Memory, changed: &PageSet, state: MachineState) {
        // What was staged before and never confirmed has changed since the confirmed state, too.
        let (_, mut contents) =
            self.staged.take().unwrap_or_else(|| (state.clone(), Contents::new(memory.pages(), true)));
        contents.copy(memory, changed);
        self.staged = Some((state, contents));
    }

    /// What was staged last has this digest, and is what to go back to from now on.
    pub fn confirm(&mut self, digest: Digest) {
        if let Some((state, contents)) = self.staged.take() {
            self.contents.merge(&contents);
            self.state = state;
            self.digest = digest;
        }
    }

    /// The confirmed state, besides RAM.
    #[must_use]
    pub fn state(&self) -> &MachineState {
        &self.state
    }

    /// Writes the confirmed content into `memory`, in which nothing runs. What was staged is forgotten.
    ///
    /// # Errors
    /// If the state is not the one that was confirmed any more; then `memory` is of no use.
    pub fn put_back(&mut self, memory: &Memory) -> Result<(), Spoilt> {
        self.staged = None;
        let (mut page, mut present) = ([0; _], [0; _]);
        for index in 0..memory.pages() {
            self.contents.read(index, &mut page);
            memory.read_page(index, &mut present);
            if page != present {
                memory.write_page(index, &page);
            }
        }
        // Of the memory, not of the copy: that it took what was written is proved with it.
        let found = PageDigests::of(memory).state_digest(&self.state);
        let (at, expected) = (self.state.position, self.digest);
        if found == expected { Ok(()) } else { Err(Spoilt { at, expected, found }) }
    }
}
