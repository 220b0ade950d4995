//! A machine whose memory changes on two accounts: the processor's and the machine's own.

use std::sync::{Arc, Mutex};

use echovisor_event::limits::{MEMORY_MIN, PAGE_SIZE};
use echovisor_machine::{
    Machine, PageSet,
    cpu::{Cpu, CpuError, CpuState, Exit, Kick, scripted::ScriptedCpu},
};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::state::{DEVICES, memory};

/// A processor whose writes are on no account but its own, as a guest's are with KVM.
pub(crate) struct Writer {
    cpu: ScriptedCpu,
    written: Written,
}

/// Lets the processor write.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<Mutex<Vec<usize>>>);

impl Writer {
    /// A machine with that processor.
    pub(crate) fn machine() -> (Machine<Writer>, Written) {
        let memory = memory();
        let written = Written::default();
        let cpu = ScriptedCpu::new(memory.clone(), 0);
        let cpu = Writer { cpu, written: written.clone() };
        (Machine::new(cpu, memory, &DEVICES), written)
    }
}

/// One byte that changes: by the processor or by the machine, where, and to what.
pub(crate) type Change = (bool, u64, u8);

pub(crate) fn change(machine: &Machine<Writer>, written: &Written, (by_cpu, address, byte): Change) {
    let memory = machine.memory().mmap();
    if by_cpu {
        let host = memory.get_host_address(GuestAddress(address)).expect("an address in RAM");
        // SAFETY: the address lies in RAM, which is mapped as long as the machine, and nothing else runs.
        unsafe { host.write(byte) };
        written.0.lock().expect("one thread").push(address as usize / PAGE_SIZE);
    } else {
        memory.write_obj(byte, GuestAddress(address)).expect("an address in RAM");
    }
}

impl Cpu for Writer {
    fn enter(&mut self) -> Result<Exit<'_>, CpuError> {
        self.cpu.enter()
    }

    fn complete(&mut self) -> Result<Option<Exit<'_>>, CpuError> {
        self.cpu.complete()
    }

    fn kicker(&self) -> Box<dyn Kick> {
        self.cpu.kicker()
    }

    fn save(&self) -> Result<CpuState, CpuError> {
        self.cpu.save()
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), CpuError> {
        self.cpu.restore(state)
    }

    fn track_writes(&mut self) -> Result<(), CpuError> {
        Ok(())
    }

    fn take_written(&mut self, pages: &mut PageSet) -> Result<(), CpuError> {
        let written: Vec<usize> = self.written.0.lock().expect("one thread").drain(..).collect();
        written.into_iter().for_each(|page| pages.insert(page));
        Ok(())
    }
}

/// Some changes, in few enough places that they meet.
pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let address = prop_oneof![0..MEMORY_MIN, 0..8 * PAGE_SIZE as u64];
    prop::collection::vec((any::<bool>(), address, 0_u8..3), 0..20)
}
