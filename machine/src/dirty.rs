//! Which pages have changed.
//!
//! Both records of that, KVM's and the machine's own, are cleared by reading. So nobody reads them but the tracker, which
//! keeps a set of pages for everyone who asks.

use crate::{
    cpu::{Cpu, CpuError},
    memory::Memory,
    pages::PageSet,
};

/// Someone who asks which pages have changed since they asked last. Who does not ask any more is given back with
/// [`Machine::untrack_pages`](crate::Machine::untrack_pages), or its set grows on.
#[derive(Debug)]
pub struct Consumer(usize);

/// What each consumer has not asked for yet.
#[derive(Debug, Default)]
pub(crate) struct DirtyTracker {
    /// By consumer; `None` where one was and has gone.
    pending: Vec<Option<PageSet>>,
    tracking: bool,
}

impl DirtyTracker {
    /// One more consumer; for the start, every page has changed.
    pub(crate) fn add(&mut self, cpu: &mut impl Cpu, memory: &Memory) -> Result<Consumer, CpuError> {
        if !self.tracking {
            cpu.track_writes()?;
            self.tracking = true;
        }
        let free = self.pending.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len() - 1
        });
        self.pending[index] = Some(PageSet::all(memory.pages()));
        Ok(Consumer(index))
    }

    /// One consumer less.
    pub(crate) fn remove(&mut self, consumer: Consumer) {
        self.pending[consumer.0] = None;
    }

    /// Reads what was written since the last call, for everyone.
    pub(crate) fn harvest(&mut self, cpu: &mut impl Cpu, memory: &Memory) -> Result<(), CpuError> {
        let mut written = PageSet::none(memory.pages());
        cpu.take_written(&mut written)?;
        memory.take_written(&mut written);
        for pending in self.pending.iter_mut().flatten() {
            pending.unite(&written);
        }
        Ok(())
    }

    /// The pages that have changed since this consumer asked last, as far as they were harvested.
    pub(crate) fn take(&mut self, consumer: &Consumer, memory: &Memory) -> PageSet {
        let none = PageSet::none(memory.pages());
        self.pending[consumer.0].replace(none).expect("a consumer is given back only once")
    }
}
