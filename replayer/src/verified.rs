//! The last state that was proved to be the recorded one, kept to go back to.

use std::time::Instant;

use echovisor_event::{Digest, Nanos};
use echovisor_machine::{
    Consumer, Machine, MachineState, Memory, RestoreError,
    cpu::{Cpu, CpuError},
};
use echovisor_snapshot::{Retained, Spoilt};

/// Why a machine cannot go back to its last verified state.
#[derive(Debug, thiserror::Error)]
pub enum RollBackError {
    /// None was kept.
    #[error("no verified state was kept")]
    NotKept,
    /// The log behind it was more than is kept.
    #[error("the log behind the last verified state was more than is kept")]
    Log,
    /// It has gone bad itself.
    #[error(transparent)]
    Spoilt(#[from] Spoilt),
    /// The host gives no processor.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The machine refuses the state.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// A verified state of a machine that follows its log.
pub(crate) struct Verified {
    retained: Retained,
    consumer: Consumer,
    /// The last time in the log, and when it came in.
    clock: (Nanos, Instant),
    /// The same where the machine stood when its state was staged last.
    staged: (Nanos, Instant),
}

impl Verified {
    /// The machine's state as it is, which has this digest.
    pub(crate) fn new<C: Cpu>(
        machine: &mut Machine<C>,
        digest: Digest,
        clock: (Nanos, Instant),
    ) -> Result<Verified, CpuError> {
        let consumer = machine.track_pages()?;
        // For the start every page has changed, and every page is copied here.
        let _ = machine.changed_pages(&consumer)?;
        let retained = Retained::new(machine.memory(), machine.save()?, digest);
        Ok(Verified { retained, consumer, clock, staged: clock })
    }

    /// Copies what has changed of a machine that stands at a checkpoint, and was harvested there.
    pub(crate) fn stage<C: Cpu>(
        &mut self,
        machine: &mut Machine<C>,
        clock: (Nanos, Instant),
    ) -> Result<(), CpuError> {
        let changed = machine.changed_pages(&self.consumer)?;
        self.retained.stage(machine.memory(), &changed, machine.save()?);
        self.staged = clock;
        Ok(())
    }

    /// What was staged has this digest, which is the recorded one.
    pub(crate) fn confirm(&mut self, digest: Digest) {
        self.retained.confirm(digest);
        self.clock = self.staged;
    }

    /// Writes it into this memory, in which nothing runs.
    pub(crate) fn put_back(&mut self, memory: &Memory) -> Result<(&MachineState, (Nanos, Instant)), Spoilt> {
        self.retained.put_back(memory)?;
        Ok((self.retained.state(), self.clock))
    }

    /// From now on it is this machine, which stands in this state, whose changes are copied.
    pub(crate) fn follow<C: Cpu>(&mut self, machine: &mut Machine<C>) -> Result<(), CpuError> {
        self.consumer = machine.track_pages()?;
        let _ = machine.changed_pages(&self.consumer)?;
        Ok(())
    }

    /// Ends the account of what changes.
    pub(crate) fn end<C: Cpu>(self, machine: &mut Machine<C>) {
        machine.untrack_pages(self.consumer);
    }
}
