//! States of machines that need no `/dev/kvm`.

use echovisor_event::{Nanos, Position, limits::MEMORY_MIN};
use echovisor_machine::{
    MachineState, Memory, Trail,
    cpu::{
        CpuState,
        kvm::{KvmState, Msr, msr},
        scripted::ScriptedState,
    },
    devices::{Devices, DevicesConfig},
};

pub(crate) const DEVICES: DevicesConfig = DevicesConfig { mac: Some([2, 0, 0, 0, 0, 1]), mtu: 1500 };

pub(crate) fn memory() -> Memory {
    Memory::new(MEMORY_MIN).expect("the host has memory")
}

/// A machine's state with this processor.
fn with(cpu: CpuState) -> MachineState {
    MachineState {
        position: Position(1234),
        trail: Trail(0x0123_4567_89ab_cdef),
        clock: Nanos(5_000_000_000),
        idle: Some(Nanos(6_000_000_000)),
        powered_off: None,
        cpu,
        devices: Devices::new(&DEVICES).save(),
    }
}

#[allow(dead_code, reason = "not every test file looks at both kinds")]
pub(crate) fn scripted() -> MachineState {
    with(CpuState::Scripted(ScriptedState { pc: 0x20_0000, registers: std::array::from_fn(|n| n as u64) }))
}

/// Every field of the processor has a value of its own.
#[allow(dead_code, reason = "as above")]
pub(crate) fn kvm() -> MachineState {
    let mut state = KvmState {
        regs: Default::default(),
        sregs: Default::default(),
        fpu: Default::default(),
        debug: Default::default(),
        xcr0: 1,
        msrs: msr::STATE.iter().map(|index| Msr { index: *index, value: u64::from(*index) + 1 }).collect(),
        mp_state: 0,
        events: Default::default(),
    };
    (state.regs.rax, state.regs.rip, state.regs.rflags) = (0x11, 0x20_0040, 0x202);
    (state.sregs.cr0, state.sregs.cr3, state.sregs.efer) = (0x8001_0033, 0x1000, 0xd00);
    (state.fpu.fcw, state.fpu.mxcsr, state.fpu.xmm[3], state.fpu.fpr[7]) =
        (0x37f, 0x1f80, [0x33; 16], [0x77; 16]);
    (state.debug.dr6, state.debug.dr7) = (0xffff_0ff0, 0x400);
    with(CpuState::Kvm(Box::new(state)))
}
