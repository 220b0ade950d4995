//! Faults that are made on purpose, to see that they are found, healed and told. For tests only.

use echovisor_machine::{
    Machine, RestoreError,
    cpu::{Cpu, CpuError, CpuState},
    devices::DevicesConfig,
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
}

impl Spoil {
    /// Makes the fault in a machine that stands at a boundary.
    ///
    /// # Errors
    /// If the processor does not tell its state, or does not take it back.
    pub fn apply<C: Cpu>(self, machine: &mut Machine<C>, config: &DevicesConfig) -> Result<(), SpoilError> {
        if let Spoil::Memory { address, bit } = self {
            machine.memory().flip(address % machine.memory().size(), bit);
            return Ok(());
        }
        let mut state = machine.save()?;
        match (self, &mut state.cpu) {
            (Spoil::Register { number, bit }, CpuState::Scripted(scripted)) => {
                let registers = &mut scripted.registers;
                let number = number % registers.len();
                registers[number] ^= 1 << (bit % 64);
            }
            (Spoil::Register { number, bit }, CpuState::Kvm(kvm)) => {
                let r = &mut kvm.regs;
                let registers = [
                    &mut r.rax, &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp,
                    &mut r.r8, &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13, &mut r.r14,
                    &mut r.r15,
                ];
                let number = number % registers.len();
                *registers[number] ^= 1 << (bit % 64);
            }
            (Spoil::Device { bit }, _) => state.devices.console.scratch ^= 1 << (bit % 8),
            (Spoil::Memory { .. }, _) => {}
        }
        Ok(machine.overwrite(config, &state)?)
    }
}
