//! The guests: one that writes to its memory all the time and rings its doorbell in between, and a server.

use echovisor_event::{Digest, limits::PAGE_SIZE};
use echovisor_machine::{
    Machine, MachineConfig,
    boot::{
        boot,
        layout::{DOORBELL_PORT, HIGH_MEMORY, LOW_MEMORY_END, control::DEADLINE},
    },
    cpu::kvm::KvmCpu,
};
use echovisor_tests::{
    GUEST,
    elf::{X86_64, elf},
};

/// Where the memory begins that a guest writes to whose memory fits below the devices.
const BASE: u64 = 4 << 20;

/// Writes between two exits.
const WRITES: u32 = 64;

/// Pages that take 63 of 64 writes, less one: the hot set of `kv` under 50 clients is about as large.
const HOT: u64 = 511;

/// A machine with so much memory, all of it in use, before the guest's first instruction.
pub(crate) fn machine(size: u64) -> Machine<KvmCpu> {
    let large = size > LOW_MEMORY_END;
    // One write of 64 goes anywhere in half of the memory, or in what lies above 4 GiB.
    let (base, pages) = if large { (HIGH_MEMORY, size - LOW_MEMORY_END) } else { (BASE, size / 2) };
    let anywhere = (pages / PAGE_SIZE as u64 + 1).next_power_of_two() / 2 - 1;
    let config = MachineConfig {
        memory: size,
        mac: None,
        mtu: 1500,
        guest: "bench".into(),
        arguments: String::new(),
        program: Digest::default(),
    };
    let machine = boot(&config, &elf(X86_64, &code(base, anywhere))).expect("a machine");
    let memory = machine.memory();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut page = [0; PAGE_SIZE];
    rng.fill(&mut page);
    for index in BASE as usize / PAGE_SIZE..memory.pages() - 1 {
        page[..8].copy_from_slice(&(index as u64).to_le_bytes());
        memory.write_page(index, &page);
    }
    machine
}

/// The server, before its first instruction.
pub(crate) fn kv() -> Machine<KvmCpu> {
    let config = MachineConfig {
        memory: 64 << 20,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        guest: "kv".into(),
        arguments: format!("ip={GUEST}/24"),
        program: Digest::default(),
    };
    boot(&config, echovisor_guests::find("kv").expect("a built-in guest").elf).expect("a machine")
}

fn code(base: u64, anywhere: u64) -> Vec<u8> {
    let mut code = Vec::new();
    // mov rbx, rdi; mov r12, seed; mov r13, BASE; mov r14, HOT; mov r15, anywhere; mov edx, doorbell
    code.extend([0x48, 0x89, 0xfb]);
    for (register, value) in [(0xbc, 0x9e37_79b9_7f4a_7c15), (0xbd, base), (0xbe, HOT), (0xbf, anywhere)] {
        code.extend([0x49, register]);
        code.extend(u64::to_le_bytes(value));
    }
    code.push(0xba);
    code.extend(u32::from(DOORBELL_PORT).to_le_bytes());
    let burst = code.len();
    // mov ecx, WRITES
    code.push(0xb9);
    code.extend(WRITES.to_le_bytes());
    let write = code.len();
    // xorshift: r12 ^= r12 << 13; r12 ^= r12 >> 7; r12 ^= r12 << 17
    code.extend([0x4c, 0x89, 0xe0, 0x48, 0xc1, 0xe0, 13, 0x49, 0x31, 0xc4]);
    code.extend([0x4c, 0x89, 0xe0, 0x48, 0xc1, 0xe8, 7, 0x49, 0x31, 0xc4]);
    code.extend([0x4c, 0x89, 0xe0, 0x48, 0xc1, 0xe0, 17, 0x49, 0x31, 0xc4]);
    // rax = r12 >> 20; rsi = r14, or r15 if r12 % 64 is 0; rax = (rax & rsi) << 12; inc qword [r13 + rax]
    code.extend([0x4c, 0x89, 0xe0, 0x48, 0xc1, 0xe8, 20, 0x4c, 0x89, 0xf6]);
    code.extend([0x41, 0xf6, 0xc4, 0x3f, 0x75, 3, 0x4c, 0x89, 0xfe]);
    code.extend([0x48, 0x21, 0xf0, 0x48, 0xc1, 0xe0, 12, 0x49, 0xff, 0x44, 0x05, 0]);
    // dec ecx; jnz write
    code.extend([0xff, 0xc9, 0x75]);
    code.push((write as i64 - (code.len() as i64 + 1)) as i8 as u8);
    // mov qword [rbx + DEADLINE], 0; xor eax, eax; out dx, eax; jmp burst
    code.extend([0x48, 0xc7, 0x83]);
    code.extend((DEADLINE as u32).to_le_bytes());
    code.extend([0, 0, 0, 0, 0x31, 0xc0, 0xef, 0xe9]);
    code.extend((burst as i32 - (code.len() as i32 + 4)).to_le_bytes());
    code
}
