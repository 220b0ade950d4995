//! A small deterministic interpreter in the place of a processor, so that everything above the processor can be tested
//! in milliseconds and without `/dev/kvm`.
//!
//! Its programs lie in guest memory like any guest, so snapshots hold them. Like a real processor it can leave in the
//! middle of an instruction ([`Instruction::Copy`]), be called out between two, and stop for a reason that nobody
//! serves.

mod assembler;
mod instruction;
pub mod programs;
mod state;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use vm_memory::{Bytes as _, GuestAddress};

pub use self::{
    assembler::{Assembler, Label, Program},
    instruction::{Condition, Instruction, Operation, Register, Width},
    state::ScriptedState,
};
use super::{Cpu, CpuError, CpuState, Exit, Kick, Reason};
use crate::{memory::Memory, pages::PageSet};

/// Most instructions from one exit to the next, about a second: much longer than a guest may run before it is kicked,
/// and the end of a test whose guest was never meant to loop.
pub const INSTRUCTIONS_MAX: u64 = 50_000_000;

/// The scripted processor.
pub struct ScriptedCpu {
    memory: Memory,
    state: ScriptedState,
    /// Address of the instruction that had the last exit.
    current: u64,
    /// What that instruction has still to do.
    rest: Rest,
    /// The data of the last exit.
    data: [u8; 8],
    kick: Arc<AtomicBool>,
}

/// Calls the processor out before its next instruction.
struct Flag(Arc<AtomicBool>);

impl Kick for Flag {
    fn kick(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What an instruction has still to do after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing.
    Done,
    /// Put what was read into a register.
    Load(Register, Width),
    /// Put what was read at an address.
    Store(u64, Width),
}

/// An exit whose data is still in [`ScriptedCpu::data`].
#[derive(Clone, Copy)]
enum Leave {
    PortRead(u16, Width),
    PortWrite(u16, Width),
    MmioRead(u64, Width),
    MmioWrite(u64, Width),
    Kicked,
}

impl ScriptedCpu {
    /// A processor with zeroed registers that starts at `entry`.
    #[must_use]
    pub fn new(memory: Memory, entry: u64) -> ScriptedCpu {
        ScriptedCpu {
            memory,
            state: ScriptedState { pc: entry, ..ScriptedState::default() },
            current: entry,
            rest: Rest::Done,
            data: [0; 8],
            kick: Arc::default(),
        }
    }

    /// Runs to the next exit, which must come within `limit` instructions.
    fn run(&mut self, limit: u64) -> Result<Leave, CpuError> {
        if let Some(leave) = self.finish()? {
            return Ok(leave);
        }
        for _ in 0..limit {
            // The read comes first because it is much cheaper than the exchange.
            if self.kick.load(Ordering::Relaxed) && self.kick.swap(false, Ordering::Relaxed) {
                return Ok(Leave::Kicked);
            }
            if let Some(leave) = self.step()? {
                return Ok(leave);
            }
        }
        Err(self.stopped("an endless loop"))
    }

    /// Does what the last instruction has still to do.
    fn finish(&mut self) -> Result<Option<Leave>, CpuError> {
        match std::mem::replace(&mut self.rest, Rest::Done) {
            Rest::Done => Ok(None),
            Rest::Load(to, width) => {
                self.set(to, self.value(width));
                Ok(None)
            }
            Rest::Store(address, width) => self.store(address, width),
        }
    }

    /// Executes one instruction, up to its first exit if it has one.
    fn step(&mut self) -> Result<Option<Leave>, CpuError> {
        self.current = self.state.pc;
        let mut bytes = [0; instruction::LENGTH];
        if self.memory.mmap().read_slice(&mut bytes, GuestAddress(self.current)).is_err() {
            return Err(self.stopped("a jump outside RAM"));
        }
        let Some(instruction) = Instruction::decode(&bytes) else {
            return Err(self.stopped("an invalid instruction"));
        };
        self.state.pc = self.current + instruction::LENGTH as u64;
        match instruction {
            Instruction::Compute { operation, to, from } => {
                self.set(to, operation.apply(self.get(to), self.get(from)));
            }
            Instruction::ComputeImmediate { operation, to, value } => {
                self.set(to, operation.apply(self.get(to), value));
            }
            Instruction::Load { to, base, offset, width } => {
                let leave = self.load(self.get(base).wrapping_add(offset), width)?;
                self.rest = Rest::Load(to, width);
                return self.unless(leave);
            }
            Instruction::Store { from, base, offset, width } => {
                self.data = self.get(from).to_le_bytes();
                return self.store(self.get(base).wrapping_add(offset), width);
            }
            Instruction::Copy { to, from, width } => {
                let leave = self.load(self.get(from), width)?;
                self.rest = Rest::Store(self.get(to), width);
                return self.unless(leave);
            }
            Instruction::Branch { condition, first, second, target } => {
                if condition.holds(self.get(first), self.get(second)) {
                    self.state.pc = target;
                }
            }
            Instruction::In { to, port, width } => {
                self.rest = Rest::Load(to, width);
                self.data = [0; 8];
                return Ok(Some(Leave::PortRead(port, width)));
            }
            Instruction::Out { from, port, width } => {
                self.data = self.get(from).to_le_bytes();
                return Ok(Some(Leave::PortWrite(port, width)));
            }
            Instruction::Halt => return Err(self.stopped("HLT")),
        }
        Ok(None)
    }

    /// Goes on with the instruction at once if what it loads did not need an exit.
    fn unless(&mut self, leave: Option<Leave>) -> Result<Option<Leave>, CpuError> {
        if leave.is_some() { Ok(leave) } else { self.finish() }
    }

    /// Loads into [`data`](ScriptedCpu::data), or says how to leave for it.
    fn load(&mut self, address: u64, width: Width) -> Result<Option<Leave>, CpuError> {
        self.data = [0; 8];
        if !self.memory.holds(address) {
            return Ok(Some(Leave::MmioRead(address, width)));
        }
        let data = &mut self.data[..width.bytes()];
        match self.memory.mmap().read_slice(data, GuestAddress(address)) {
            Ok(()) => Ok(None),
            Err(_) => Err(self.stopped("a load across the end of RAM")),
        }
    }

    /// Stores [`data`](ScriptedCpu::data), or says how to leave for it.
    fn store(&mut self, address: u64, width: Width) -> Result<Option<Leave>, CpuError> {
        if !self.memory.holds(address) {
            return Ok(Some(Leave::MmioWrite(address, width)));
        }
        let data = &self.data[..width.bytes()];
        if !self.memory.holds(address + data.len() as u64 - 1) {
            return Err(self.stopped("a store across the end of RAM"));
        }
        self.memory.mmap().write_slice(data, GuestAddress(address)).expect("the address lies in RAM");
        Ok(None)
    }

    fn get(&self, register: Register) -> u64 {
        self.state.registers[register.index()]
    }

    fn set(&mut self, register: Register, value: u64) {
        self.state.registers[register.index()] = value;
    }

    /// The first bytes of [`data`](ScriptedCpu::data), extended by zeros.
    fn value(&self, width: Width) -> u64 {
        u64::from_le_bytes(self.data) & u64::MAX >> (64 - 8 * width.bytes())
    }

    fn stopped(&self, why: &str) -> CpuError {
        CpuError::UnknownExit { rip: self.current, exit: why.to_owned() }
    }

    fn exit(&mut self, leave: Leave) -> Exit<'_> {
        let (data, current) = (&mut self.data, self.current);
        let (rip, reason) = match leave {
            Leave::PortRead(port, width) => {
                (current, Reason::PortRead { port, width: width as u8, data: &mut data[..width.bytes()] })
            }
            Leave::PortWrite(port, width) => {
                (current, Reason::PortWrite { port, width: width as u8, data: &data[..width.bytes()] })
            }
            Leave::MmioRead(address, width) => {
                (current, Reason::MmioRead { address, data: &mut data[..width.bytes()] })
            }
            Leave::MmioWrite(address, width) => {
                (current, Reason::MmioWrite { address, data: &data[..width.bytes()] })
            }
            Leave::Kicked => (self.state.pc, Reason::Kicked),
        };
        Exit { rip, reason }
    }
}

impl Cpu for ScriptedCpu {
    fn enter(&mut self) -> Result<Exit<'_>, CpuError> {
        let leave = self.run(INSTRUCTIONS_MAX)?;
        Ok(self.exit(leave))
    }

    fn complete(&mut self) -> Result<Option<Exit<'_>>, CpuError> {
        match self.finish()? {
            Some(leave) => Ok(Some(self.exit(leave))),
            None => Ok(None),
        }
    }

    fn kicker(&self) -> Box<dyn Kick> {
        Box::new(Flag(Arc::clone(&self.kick)))
    }

    fn save(&self) -> Result<CpuState, CpuError> {
        if self.rest != Rest::Done {
            return Err(CpuError::State("the instruction of the last exit is not complete".to_owned()));
        }
        Ok(CpuState::Scripted(self.state.clone()))
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), CpuError> {
        let CpuState::Scripted(state) = state else {
            return Err(CpuError::State("it is of another kind of processor".to_owned()));
        };
        self.state = state.clone();
        self.current = state.pc;
        self.rest = Rest::Done;
        Ok(())
    }

    fn track_writes(&mut self) -> Result<(), CpuError> {
        Ok(())
    }

    /// The interpreter writes as the machine does, so that [`Memory`] knows of it already.
    fn take_written(&mut self, _: &mut PageSet) -> Result<(), CpuError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
