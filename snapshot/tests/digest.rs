//! What the digest sees, and what it must not see.

mod state;

use echovisor_event::{
    Nanos, Position,
    limits::{MEMORY_MIN, PAGE_SIZE},
};
use echovisor_machine::{
    MachineState, Memory, Trail,
    cpu::{CpuState, kvm::KvmState},
};
use echovisor_snapshot::{PageDigests, state_digest};
use proptest::prelude::*;
use state::memory;
use vm_memory::{Bytes, GuestAddress};

fn write(memory: &Memory, writes: &[(u64, u8)]) {
    for (address, byte) in writes {
        memory.mmap().write_obj(*byte, GuestAddress(*address)).unwrap();
    }
}

fn page(memory: &Memory, index: usize) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    memory.read_page(index, &mut page);
    page
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The tree finds the pages that a comparison of all pages finds.
    #[test]
    fn the_tree_finds_every_difference(
        ours in prop::collection::vec((0..MEMORY_MIN, 0_u8..3), 0..40),
        theirs in prop::collection::vec((0..MEMORY_MIN, 0_u8..3), 0..40),
        shared in prop::collection::vec((0..MEMORY_MIN, any::<u8>()), 0..40),
    ) {
        let (one, other) = (memory(), memory());
        for memory in [&one, &other] {
            write(memory, &shared);
        }
        write(&one, &ours);
        write(&other, &theirs);
        let naive: Vec<usize> = (0..one.pages()).filter(|index| page(&one, *index) != page(&other, *index)).collect();
        let (one, other) = (PageDigests::of(&one), PageDigests::of(&other));
        prop_assert_eq!(&one.differences(&other), &naive);
        prop_assert_eq!(&other.differences(&one), &naive);
        prop_assert_eq!(one.root() == other.root(), naive.is_empty());
    }
}

#[test]
fn every_byte_of_ram_counts() {
    let memory = memory();
    let before = PageDigests::of(&memory).root();
    let last = MEMORY_MIN - 1;
    for address in [0, 1, 4095, 4096, 64 * 4096 - 1, 64 * 4096, last / 2, last] {
        write(&memory, &[(address, 1)]);
        assert_ne!(PageDigests::of(&memory).root(), before, "{address:#x}");
        write(&memory, &[(address, 0)]);
    }
    assert_eq!(PageDigests::of(&memory).root(), before);
}

/// The same content in another place is another memory.
#[test]
fn places_count() {
    let (one, other) = (memory(), memory());
    write(&one, &[(0x1000, 7)]);
    write(&other, &[(0x2000, 7)]);
    assert_ne!(PageDigests::of(&one).root(), PageDigests::of(&other).root());
}

#[test]
fn memories_of_different_sizes_differ_everywhere() {
    let larger = PageDigests::of(&Memory::new(2 * MEMORY_MIN).unwrap());
    let smaller = PageDigests::of(&memory());
    assert_eq!(smaller.differences(&larger).len(), larger.pages().len());
    assert_ne!(smaller.root(), larger.root());
}

fn processor(state: &mut MachineState) -> &mut KvmState {
    match &mut state.cpu {
        CpuState::Kvm(state) => state,
        CpuState::Scripted(_) => panic!("not a scripted one"),
    }
}

#[test]
fn everything_but_what_hardware_changes_by_itself_counts() {
    let memory = memory();
    let before = state_digest(&memory, &state::kvm());
    let changes: [fn(&mut MachineState); 26] = [
        |state| state.position = Position(1235),
        |state| state.trail = Trail(1),
        |state| state.clock = Nanos(1),
        |state| state.idle = None,
        |state| state.idle = Some(Nanos(6_000_000_001)),
        |state| state.powered_off = Some(0),
        |state| state.devices.config_address = 0x8000_0000,
        |state| state.devices.net = None,
        |state| processor(state).regs.rax += 1,
        |state| processor(state).regs.r15 += 1,
        |state| processor(state).regs.rip += 1,
        |state| processor(state).regs.rflags ^= 1,
        |state| processor(state).sregs.cs.base += 1,
        |state| processor(state).sregs.tr.limit += 1,
        |state| processor(state).sregs.cr2 += 1,
        |state| processor(state).sregs.efer ^= 1,
        |state| processor(state).fpu.fcw ^= 1,
        |state| processor(state).fpu.ftwx ^= 1,
        |state| processor(state).fpu.mxcsr ^= 1,
        |state| processor(state).fpu.fpr[0][9] ^= 1,
        |state| processor(state).fpu.xmm[15][15] ^= 1,
        |state| processor(state).debug.dr7 ^= 1,
        |state| processor(state).xcr0 ^= 2,
        |state| processor(state).msrs[8].value ^= 1,
        |state| processor(state).mp_state ^= 1,
        |state| processor(state).events.exception.pending ^= 1,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut state = state::kvm();
        change(&mut state);
        assert_ne!(state_digest(&memory, &state), before, "change {index}");
    }
    let pointers: [fn(&mut MachineState); 3] = [
        |state| processor(state).fpu.last_ip = 1,
        |state| processor(state).fpu.last_dp = 1,
        |state| processor(state).fpu.last_opcode = 1,
    ];
    for change in pointers {
        let mut state = state::kvm();
        change(&mut state);
        assert_eq!(state_digest(&memory, &state), before);
    }
}
