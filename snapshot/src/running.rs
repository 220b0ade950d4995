//! The digest of a machine that runs on.

use echovisor_event::Digest;
use echovisor_machine::{
    Consumer, Machine, MachineState, Memory, PageSet,
    cpu::{Cpu, CpuError},
};

use crate::{
    capture::Capture,
    digest::{PageDigests, combine},
};

/// How many digests it takes until every page has been read again, changed or not.
const SCRUB: usize = 64;

/// The digest of a machine's state, kept up to date: of its pages only those are hashed again that have changed.
///
/// A page that changed on nobody's account, such as by a fault of the host's memory, would stay unseen. So each digest also
/// reads a part of all the others, and the machine that differs from its peer is noticed within 64 digests.
///
/// Either [`RunningDigest::take`] does all of that at once; or [`RunningDigest::begin`], and as often as one likes
/// [`RunningDigest::rehash`] and [`RunningDigest::changed`], do most of it while the guest runs, and [`RunningDigest::finish`]
/// the rest while it stands; or the rest is copied then, and read by [`RunningDigest::rehash_held`] while the guest runs on.
#[derive(Debug)]
pub struct RunningDigest {
    pages: PageDigests,
    consumer: Consumer,
    /// How many digests there have been.
    round: usize,
}

impl RunningDigest {
    /// Begins with the machine as it is. The first digest reads all pages.
    ///
    /// # Errors
    /// If the processor does not keep account of the guest's writes.
    pub fn new<C: Cpu>(machine: &mut Machine<C>) -> Result<RunningDigest, CpuError> {
        // The tree is made where the first pages are read, which need not be while the guest stands still.
        let pages = PageDigests::of_zeros(0);
        Ok(RunningDigest { pages, consumer: machine.track_pages()?, round: 0 })
    }

    /// The digest of the state, the same as [`state_digest`](crate::state_digest) computes from all of it. The machine is
    /// the one this was made for, and stands at a boundary.
    ///
    /// # Errors
    /// If the processor does not tell its state or what the guest has written.
    pub fn take<C: Cpu>(&mut self, machine: &mut Machine<C>) -> Result<Digest, CpuError> {
        machine.harvest()?;
        let changed = self.begin(machine);
        self.rehash(machine.memory(), &changed);
        Ok(self.finish(&machine.save()?))
    }

    /// Begins a digest: the pages that must be read for it, as far as they were [harvested](Machine::harvest).
    pub fn begin<C: Cpu>(&mut self, machine: &mut Machine<C>) -> PageSet {
        let mut changed = self.changed(machine);
        let pages = machine.memory().pages();
        let part = pages.div_ceil(SCRUB);
        let first = self.round % SCRUB * part;
        (first..first + part).take_while(|page| *page < pages).for_each(|page| changed.insert(page));
        self.round += 1;
        changed
    }

    /// The pages that have changed since this or [`RunningDigest::begin`] was asked last, as far as they were harvested.
    pub fn changed<C: Cpu>(&mut self, machine: &mut Machine<C>) -> PageSet {
        machine.harvested(&self.consumer)
    }

    /// Reads pages. If the guest runs meanwhile, those that it writes are asked for by the next [`RunningDigest::changed`].
    pub fn rehash(&mut self, memory: &Memory, pages: &PageSet) {
        if self.pages.pages().is_empty() {
            self.pages = PageDigests::of_zeros(memory.pages());
        }
        self.pages.update(memory, pages);
    }

    /// Reads pages that were copied for a capture, as they were there: those that had changed since they were read from memory.
    pub fn rehash_held(&mut self, capture: &Capture, pages: &PageSet) {
        capture.update_some(&mut self.pages, pages);
    }

    /// The digest of the machine in this state, which has stood still since the pages were read that were the last to change.
    #[must_use]
    pub fn finish(&self, state: &MachineState) -> Digest {
        combine(self.pages.root(), state)
    }

    /// Ends the account of what changes.
    pub fn end<C: Cpu>(self, machine: &mut Machine<C>) {
        machine.untrack_pages(self.consumer);
    }
}
