//! Faults that are made on purpose, to see that they are found, healed and told. For tests only.

use echovisor_machine::{
    Machine, MachineState, RestoreError,
    cpu::{Cpu, CpuError, CpuState},
};

/// A bit that goes bad in a secondary's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// One of RAM, on nobody's account of changed pages.
    Memory {
        /// Where; beyond the end of RAM it is counted from the start again.
        address: u64,
        /// Which bit of the byte there.
        bit: u8,
    },
    /// One of a general-purpose register.
    Register {
        /// Which: RAX RBX RCX RDX RSI RDI RBP R8 to R15, or those of a scripted processor; beyond the last one it is counted
        /// from the first again.
        number: usize,
        /// Which bit of it.
        bit: u8,
    },
    /// One of the console's scratch register.
    Device {
        /// Which.
        bit: u8,
    },
}

/// Why a machine could not be spoilt.
#[derive(Debug, thiserror::Error)]
pub enum SpoilError {
    /// The processor does not tell its state.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The machine refuses its changed state.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The machine has not the changed state that it took.
    #[error("{0:?} was made, but cannot be read back")]
    Lost(Spoil),
}

impl Spoil {
    /// Makes the fault in a machine that stands at a boundary.
    ///
    /// # Errors
    /// If the processor does not tell its state, or does not take it back. That the bit is bad is read back: a fault which was
    /// never made proves nothing about those who look for it.
    pub fn apply<C: Cpu>(self, machine: &mut Machine<C>) -> Result<(), SpoilError> {
        if let Spoil::Memory { address, bit } = self {
            machine.memory().flip(address % machine.memory().size(), bit);
            return Ok(());
        }
        let mut state = machine.save()?;
        let right = self.read(&mut state);
        self.flip(&mut state);
        machine.overwrite(&state)?;
        let taken = self.read(&mut machine.save()?);
        if taken != self.read(&mut state) || taken == right { Err(SpoilError::Lost(self)) } else { Ok(()) }
    }

    /// Makes the fault in a state.
    fn flip(self, state: &mut MachineState) {
        match self {
            Spoil::Register { number, bit } => {
                let mut registers = registers(&mut state.cpu);
                let number = number % registers.len();
                *registers[number] ^= 1 << (bit % 64);
            }
            Spoil::Device { bit } => state.devices.console.scratch ^= 1 << (bit % 8),
            Spoil::Memory { .. } => {}
        }
    }

    /// What there is in its place.
    fn read(self, state: &mut MachineState) -> u64 {
        match self {
            Spoil::Register { number, .. } => {
                let registers = registers(&mut state.cpu);
                *registers[number % registers.len()]
            }
            _ => state.devices.console.scratch.into(),
        }
    }
}

/// The registers that can go bad.
fn registers(cpu: &mut CpuState) -> Vec<&mut u64> {
    match cpu {
        CpuState::Scripted(scripted) => scripted.registers.iter_mut().collect(),
        CpuState::Kvm(kvm) => {
            let r = &mut kvm.regs;
            vec![
                &mut r.rax, &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp,
                &mut r.r8, &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15,
            ]
        }
    }
}
