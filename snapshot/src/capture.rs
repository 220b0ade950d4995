//! The state of a machine that runs on, at one position.

use echovisor_event::{Position, limits::PAGE_SIZE};
use echovisor_machine::{MachineState, Memory, PageSet};

use crate::{contents::Contents, digest::PageDigests, store::PageSource};

/// A machine's state at a boundary, with the contents of pages: of all of them, or of those that have changed since the
/// capture before. The machine runs on; this stays as it is.
#[derive(Debug)]
pub struct Capture {
    state: MachineState,
    contents: Contents,
    size: u64,
    complete: bool,
}

impl Capture {
    /// Takes everything at once; the guest must not run meanwhile. For all of a large memory that takes its time: a guest
    /// that is to run on is captured by [`Precopy`].
    #[must_use]
    pub fn whole(memory: &Memory, state: MachineState) -> Capture {
        let mut precopy = Precopy::new(memory, true);
        precopy.copy(&PageSet::all(memory.pages()));
        precopy.finish(state)
    }

    /// Where it was taken.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// Processor, devices and clock.
    #[must_use]
    pub fn state(&self) -> &MachineState {
        &self.state
    }

    /// Size of the guest's RAM, bytes.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        self.size
    }

    /// Whether it is all of the state: a page that is not in [`Capture::pages`] is zero. Otherwise such a page is as it was in
    /// the capture before.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The pages whose contents are held.
    #[must_use]
    pub fn pages(&self) -> &PageSet {
        self.contents.held()
    }

    /// Reads the content of a page. One that is not in [`Capture::pages`] reads as zeros.
    ///
    /// # Panics
    /// If the guest has no such page.
    pub fn read_page(&self, index: usize, page: &mut [u8; PAGE_SIZE]) {
        self.contents.read(index, page);
    }

    /// The digests of all pages, of a capture that is complete.
    #[must_use]
    pub fn page_digests(&self) -> PageDigests {
        let mut digests = PageDigests::of_zeros(self.size as usize / PAGE_SIZE);
        self.update(&mut digests);
        digests
    }

    /// Makes the digests of the pages at the capture before those of the pages at this one.
    pub fn update(&self, digests: &mut PageDigests) {
        self.update_some(digests, self.pages());
    }

    /// The same, of these pages alone.
    pub(crate) fn update_some(&self, digests: &mut PageDigests, pages: &PageSet) {
        digests.update_with(pages, |index, page| self.read_page(index, page));
    }
}

impl PageSource for Capture {
    fn read_page(&self, index: usize, page: &mut [u8; PAGE_SIZE]) -> bool {
        Capture::read_page(self, index, page);
        self.complete || self.pages().contains(index)
    }
}

/// A capture in the making: pages are copied while the guest runs, and those that changed meanwhile again, until few are left.
/// The guest stands still only for these.
#[derive(Debug)]
pub struct Precopy {
    memory: Memory,
    contents: Contents,
    complete: bool,
}

impl Precopy {
    /// Nothing has been copied yet of this memory. `complete`: of all of it, not of what has changed since the capture before.
    #[must_use]
    pub fn new(memory: &Memory, complete: bool) -> Precopy {
        Precopy { memory: memory.clone(), contents: Contents::new(memory.pages(), !complete), complete }
    }

    /// Nothing has been copied yet of this memory, in place of a capture of it that is of no use any more: what this needs was
    /// got from the host for that one. `None` if that was complete, and so may have taken much.
    #[must_use]
    pub fn in_place_of(capture: Capture, memory: &Memory) -> Option<Precopy> {
        let Capture { mut contents, complete, .. } = capture;
        contents.clear();
        (!complete).then(|| Precopy { memory: memory.clone(), contents, complete })
    }

    /// Copies pages as they are now. If the guest runs meanwhile, ask [which have changed](echovisor_machine::Machine::harvest)
    /// before this: what is written from then on is asked for the next time, and copied again.
    pub fn copy(&mut self, pages: &PageSet) {
        self.contents.copy(&self.memory, pages);
    }

    /// Gets memory for that many pages more, so that the guest need not wait for it later.
    pub fn reserve(&mut self, pages: usize) {
        self.contents.reserve(pages);
    }

    /// The capture of the machine in this state. It has stood still since the pages were copied that were
    /// the last to change.
    #[must_use]
    pub fn finish(self, state: MachineState) -> Capture {
        let Precopy { memory, contents, complete } = self;
        Capture { state, contents, size: memory.size(), complete }
    }
}
