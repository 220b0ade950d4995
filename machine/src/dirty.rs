//! Which pages have changed.
//!
//! Both records of that, KVM's and the machine's own, are cleared by reading. So nobody reads them but the tracker, which
//! keeps a set of pages for everyone who asks.

use crate::{
    cpu::{Cpu, CpuError},
    memory::Memory,
    pages::PageSet,
};

/// Someone who asks which pages have changed since they asked last.
#[derive(Clone, Copy, Debug)]
pub struct Consumer(usize);

/// What each consumer has not asked for yet.
#[derive(Debug, Default)]
pub(crate) struct DirtyTracker {
    pending: Vec<PageSet>,
}

impl DirtyTracker {
    /// One more consumer; for the start, every page has changed.
    pub(crate) fn add(&mut self, cpu: &mut impl Cpu, memory: &Memory) -> Result<Consumer, CpuError> {
        if self.pending.is_empty() {
            cpu.track_writes()?;
        }
        self.pending.push(PageSet::all(memory.pages()));
        Ok(Consumer(self.pending.len() - 1))
    }

    /// The pages that have changed since this consumer asked last.
    pub(crate) fn take(
        &mut self,
        consumer: Consumer,
        cpu: &mut impl Cpu,
        memory: &Memory,
    ) -> Result<PageSet, CpuError> {
        let mut written = PageSet::none(memory.pages());
        cpu.take_written(&mut written)?;
        memory.take_written(&mut written);
        for pending in &mut self.pending {
            pending.unite(&written);
        }
        Ok(std::mem::replace(&mut self.pending[consumer.0], PageSet::none(memory.pages())))
    }
}
