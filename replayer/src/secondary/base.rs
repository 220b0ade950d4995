//! What a secondary has when it is given a state: all that is in it need not be sent.

use echovisor_machine::{Machine, MachineState, Memory, MemoryError, cpu::Cpu};
use echovisor_snapshot::PageDigests;

/// A memory to be filled, and what is known of its content.
#[derive(Debug)]
pub struct Base {
    /// The memory. Nothing runs in it.
    pub memory: Memory,
    /// The digests of what it holds.
    pub digests: PageDigests,
    /// The state besides RAM of the machine that ran in it, if it stood at a boundary and nothing was written since.
    pub state: Option<MachineState>,
}

impl Base {
    /// A new memory.
    ///
    /// # Errors
    /// If the host has none.
    pub fn new(size: u64) -> Result<Base, MemoryError> {
        let memory = Memory::new(size)?;
        Ok(Base { digests: PageDigests::of_zeros(memory.pages()), memory, state: None })
    }

    /// A memory in which a guest ran until a moment ago. All of it is read, since what is wrong with it may be on no account.
    #[must_use]
    pub fn left(memory: Memory) -> Base {
        Base { digests: PageDigests::of(&memory), memory, state: None }
    }

    /// The memory of a machine that is given up, and its state. All of it is read, as by [`Base::left`].
    pub fn of<C: Cpu>(mut machine: Machine<C>) -> Base {
        // In the middle of an instruction it has no state that could be compared.
        let state = machine.settle().and_then(|()| machine.save()).ok();
        let memory = machine.memory().clone();
        drop(machine);
        Base { state, ..Base::left(memory) }
    }
}
