//! The scripted guest of the simulation: a ledger, whose every answer tells its whole history.

use echovisor_event::{Digest, limits::MEMORY_MIN};
use echovisor_machine::{
    Machine, MachineConfig, Memory,
    boot::layout::IMAGE_BASE,
    cpu::{
        CpuError,
        scripted::{ScriptedCpu, programs::ledger},
    },
};

pub(crate) fn config() -> MachineConfig {
    MachineConfig {
        memory: MEMORY_MIN,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        guest: "ledger".into(),
        arguments: String::new(),
        program: Digest::default(),
    }
}

/// The guest before its first instruction.
pub(crate) fn boot() -> Machine<ScriptedCpu> {
    let program = ledger(16);
    let memory = Memory::new(MEMORY_MIN).expect("the host has memory");
    program.load(&memory);
    let cpu = ScriptedCpu::new(memory.clone(), program.entry());
    Machine::new(cpu, memory, &config().devices())
}

/// The processor of a machine that is being restored.
pub(crate) fn processor(memory: &Memory) -> Result<ScriptedCpu, CpuError> {
    Ok(ScriptedCpu::new(memory.clone(), IMAGE_BASE))
}

/// A request that no other equals.
pub(crate) fn request(number: u64) -> Vec<u8> {
    let mut frame = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_le_bytes());
    frame.resize(62, number as u8);
    frame
}
