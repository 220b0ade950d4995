//! Scripted guests as machines. They need no `/dev/kvm`, and everything above the processor is the real thing.

use echovisor_event::{Digest, limits::MEMORY_MIN};
use echovisor_machine::{
    Machine, MachineConfig, Memory,
    boot::layout::IMAGE_BASE,
    cpu::{
        CpuError,
        scripted::{Program, ScriptedCpu},
    },
};

/// The configuration of every scripted guest.
#[must_use]
pub fn config() -> MachineConfig {
    MachineConfig {
        memory: MEMORY_MIN,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        guest: "scripted".into(),
        arguments: String::new(),
        program: Digest::default(),
    }
}

/// A machine before the program's first instruction.
///
/// # Panics
/// If the host has no memory for it.
#[must_use]
pub fn boot(program: &Program) -> Machine<ScriptedCpu> {
    let memory = Memory::new(MEMORY_MIN).expect("the host has memory");
    program.load(&memory);
    let cpu = ScriptedCpu::new(memory.clone(), program.entry());
    Machine::new(cpu, memory, &config().devices())
}

/// The processor of a machine that is being restored.
///
/// # Errors
/// Never; a processor of KVM could fail.
pub fn processor(memory: &Memory) -> Result<ScriptedCpu, CpuError> {
    Ok(ScriptedCpu::new(memory.clone(), IMAGE_BASE))
}
