//! Scripted guests, and what they say. They need no `/dev/kvm`, and everything above the processor is the real thing.

use echovisor_event::{Digest, Effect, limits::MEMORY_MIN};
use echovisor_machine::{
    Machine, MachineConfig, Memory,
    boot::layout::IMAGE_BASE,
    cpu::{
        CpuError,
        scripted::{Program, ScriptedCpu},
    },
};

/// The configuration of every scripted guest.
pub(crate) fn config() -> MachineConfig {
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
pub(crate) fn boot(program: &Program) -> Machine<ScriptedCpu> {
    let memory = Memory::new(MEMORY_MIN).expect("the host has memory");
    program.load(&memory);
    let cpu = ScriptedCpu::new(memory.clone(), program.entry());
    Machine::new(cpu, memory, &config().devices())
}

/// The processor of a machine that is being restored.
pub(crate) fn processor(memory: &Memory) -> Result<ScriptedCpu, CpuError> {
    Ok(ScriptedCpu::new(memory.clone(), IMAGE_BASE))
}

/// An effect that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Frame(Vec<u8>),
    Console(Vec<u8>),
    PowerOff(u32),
}

impl From<Effect<'_>> for Said {
    fn from(effect: Effect<'_>) -> Said {
        match effect {
            Effect::Frame(frame) => Said::Frame(frame.to_vec()),
            Effect::Console(bytes) => Said::Console(bytes.to_vec()),
            Effect::PowerOff(code) => Said::PowerOff(code),
        }
    }
}

/// A frame that no other equals. Lengths differ.
pub(crate) fn frame(number: u64) -> Vec<u8> {
    let mut frame = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_le_bytes());
    frame.extend((0..number * 37 % 600).map(|byte| byte as u8));
    frame
}

/// What the echo guest makes of a frame.
pub(crate) fn echoed(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}
