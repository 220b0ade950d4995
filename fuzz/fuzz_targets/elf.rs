//! Guests: ELF files that are to be booted, and their symbols.

#![no_main]

use echovisor_event::limits::MEMORY_MIN;
use echovisor_machine::{
    Memory,
    boot::{Symbols, layout::IMAGE_BASE, load},
    cpu::kvm::KvmState,
};
use libfuzzer_sys::fuzz_target;

thread_local! {
    /// Of what an earlier input left in it nothing is read.
    static MEMORY: Memory = Memory::new(MEMORY_MIN).expect("memory for a guest");
}

fuzz_target!(|elf: &[u8]| {
    MEMORY.with(|memory| {
        let mut state = fresh();
        if load(elf, "ip=10.0.0.2/24", memory, &mut state).is_ok() {
            assert!((IMAGE_BASE..MEMORY_MIN).contains(&state.regs.rip));
        }
    });
    if let Ok(symbols) = Symbols::of(elf) {
        for address in [0, IMAGE_BASE, u64::MAX] {
            let _ = symbols.resolve(address);
        }
    }
});

/// A vCPU's state before anything is set.
fn fresh() -> KvmState {
    KvmState {
        regs: Default::default(),
        sregs: Default::default(),
        fpu: Default::default(),
        debug: Default::default(),
        xcr0: 1,
        msrs: Vec::new(),
        mp_state: 0,
        events: Default::default(),
    }
}
