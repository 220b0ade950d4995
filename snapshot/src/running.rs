//! The digest of a machine that runs on.

use echovisor_event::Digest;
use echovisor_machine::{
    Consumer, Machine,
    cpu::{Cpu, CpuError},
};

use crate::digest::{PageDigests, combine};

/// How many digests it takes until every page has been read again, changed or not.
const SCRUB: usize = 64;

/// The digest of a machine's state, kept up to date: of its pages only those are hashed again that have changed.
///
/// A page that changed on nobody's account, such as by a fault of the host's memory, would stay unseen. So each digest also
/// reads a part of all the others, and the machine that differs from its peer is noticed within 64 digests.
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
        let pages = PageDigests::of_zeros(machine.memory().pages());
        Ok(RunningDigest { pages, consumer: machine.track_pages()?, round: 0 })
    }

    /// The digest of the state, the same as [`state_digest`](crate::state_digest) computes from all of it. The machine is
    /// the one this was made for, and stands at a boundary.
    ///
    /// # Errors
    /// If the processor does not tell its state or what the guest has written.
    pub fn take<C: Cpu>(&mut self, machine: &mut Machine<C>) -> Result<Digest, CpuError> {
        let mut changed = machine.changed_pages(self.consumer)?;
        let memory = machine.memory();
        let part = memory.pages().div_ceil(SCRUB);
        let first = self.round % SCRUB * part;
        (first..first + part).take_while(|page| *page < memory.pages()).for_each(|page| changed.insert(page));
        self.round += 1;
        self.pages.update(memory, &changed);
        Ok(combine(self.pages.root(), &machine.save()?))
    }
}
