//! What differs between one KVM and another, as ARCHITECTURE.md lists it: each test finds the rule of the host that it runs
//! on. They need `/dev/kvm`; `tests/bed` runs them on an ordinary one.
//!
//! The instructions are those that no guest may contain, so they are written over a guest that is already loaded.

#![allow(clippy::disallowed_methods, reason = "a test is the machine's outside")]

mod elf_file;

use std::{arch::x86_64::__cpuid_count, convert::Infallible};

use echovisor_event::{Digest, Effect, Position, limits::MEMORY_MIN};
use echovisor_machine::{
    Effects, Here, Machine, MachineConfig, Memory, Next, Stop, World,
    boot::{boot, load},
    cpu::{
        Cpu, Reason,
        kvm::{Exception, Fingerprint, Flavour, KvmCpu},
    },
};
use elf_file::code;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use vm_memory::{Bytes, GuestAddress};

/// The guests' first instruction.
const ENTRY: u64 = 0x20_0000;

/// `mov edx, 0x604; out dx, eax`: power off with the exit code in EAX.
const POWER_OFF: [u8; 6] = [0xba, 0x04, 0x06, 0, 0, 0xef];

const NOP: u8 = 0x90;

const GENERAL_PROTECTION: u64 = 13;
const INVALID_OPCODE: u64 = 6;

fn is_pvm() -> bool {
    Flavour::of_host() == Flavour::Pvm
}

struct Silence;

impl Effects for Silence {
    fn effect(&mut self, _: Position, _: Effect<'_>) {}
}

impl World for Silence {
    type Error = Infallible;

    fn next(&mut self, _: &Here) -> Result<Next<'_>, Infallible> {
        Ok(Next::Enter)
    }
}

fn machine(instructions: &[u8]) -> Machine<KvmCpu> {
    let config = MachineConfig {
        memory: MEMORY_MIN,
        mac: None,
        mtu: 1500,
        guest: "test".into(),
        arguments: String::new(),
        program: Digest::default(),
    };
    boot(&config, &code(instructions)).unwrap_or_else(|error| panic!("this test needs KVM: {error}"))
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With this in EAX.
    Ran(u32),
    /// At its first instruction, with this exception.
    Faulted(u64),
}

/// Runs these instructions in ring 3, and then powers off.
fn ring_3(instructions: &[u8]) -> End {
    let program = [instructions, &POWER_OFF].concat();
    let mut machine = machine(&vec![NOP; program.len()]);
    machine.memory().mmap().write_slice(&program, GuestAddress(ENTRY)).unwrap();
    match machine.run(&mut Silence).unwrap() {
        Stop::PoweredOff(eax) => End::Ran(eax),
        Stop::Crashed(crash) => {
            assert_eq!(crash.rip, ENTRY, "{crash}");
            End::Faulted(crash.vector)
        }
        stop => panic!("{stop:?}"),
    }
}

/// CPUID leaf 1 in ring 3: ECX and EDX.
fn features() -> [u32; 2] {
    // mov eax, 1; xor ecx, ecx; cpuid; and then mov eax, ecx, or mov eax, edx
    [[0x89, 0xc8], [0x89, 0xd0]].map(|to_eax| {
        match ring_3(&[&[0xb8, 1, 0, 0, 0, 0x31, 0xc9, 0x0f, 0xa2][..], &to_eax].concat()) {
            End::Ran(eax) => eax,
            End::Faulted(vector) => panic!("CPUID: exception {vector}"),
        }
    })
}

#[test]
fn an_out_exit_is_on_its_instruction_or_behind_it_until_it_is_complete() {
    // out dx, eax; nop
    let memory = Memory::new(MEMORY_MIN).unwrap();
    let mut cpu = KvmCpu::new(&memory).unwrap_or_else(|error| panic!("this test needs KVM: {error}"));
    let mut state = cpu.state().unwrap();
    load(&code(&[0xef, NOP]), "", &memory, &mut state).unwrap();
    cpu.set_state(&state).unwrap();

    let exit = cpu.enter().unwrap();
    assert!(matches!(exit.reason, Reason::PortWrite { .. }));
    assert_eq!(exit.rip, if is_pvm() { ENTRY + 1 } else { ENTRY });
    assert!(cpu.complete().unwrap().is_none());
    assert_eq!(
        cpu.state().unwrap().regs.rip,
        ENTRY + 1,
        "complete, every host has it behind the instruction"
    );
}

#[test]
fn the_time_stamp_counter_traps_where_cr4_can_make_it() {
    // rdtsc; xor eax, eax
    let expected = if is_pvm() { End::Ran(0) } else { End::Faulted(GENERAL_PROTECTION) };
    assert_eq!(ring_3(&[0x0f, 0x31, 0x31, 0xc0]), expected);
}

#[test]
fn cpuid_shows_the_table_or_the_processor() {
    const HYPERVISOR_RDRAND_XSAVE: u32 = 1 << 31 | 1 << 30 | 1 << 26;
    const TSC_APIC: u32 = 1 << 4 | 1 << 9;
    let [ecx, edx] = features();
    let host = __cpuid_count(1, 0);
    if is_pvm() {
        // Bit 27 of ECX says whether whoever asks may use XGETBV.
        assert_eq!((ecx | 1 << 27, edx), (host.ecx | 1 << 27, host.edx), "ring 3 asks the processor itself");
    } else {
        assert_eq!((ecx & HYPERVISOR_RDRAND_XSAVE, edx & TSC_APIC), (0, 0), "{ecx:#x} {edx:#x}");
        assert_ne!((ecx, edx), (host.ecx, host.edx));
    }
}

#[test]
fn random_numbers_are_there_unless_vt_x_hides_them() {
    let host_has_them = __cpuid_count(1, 0).ecx >> 30 & 1 == 1;
    let hidden = Flavour::of_host() == Flavour::Vmx;
    let expected = if host_has_them && !hidden { End::Ran(0) } else { End::Faulted(INVALID_OPCODE) };
    // rdrand eax; xor eax, eax
    assert_eq!(ring_3(&[0x0f, 0xc7, 0xf0, 0x31, 0xc0]), expected);
}

#[test]
fn avx_is_off_where_the_guests_own_cr4_decides() {
    // vxorps ymm0, ymm0, ymm0; xor eax, eax
    let host_has_avx = __cpuid_count(1, 0).ecx >> 28 & 1 == 1;
    let expected = if is_pvm() && host_has_avx { End::Ran(0) } else { End::Faulted(INVALID_OPCODE) };
    assert_eq!(ring_3(&[0xc5, 0xfc, 0x57, 0xc0, 0x31, 0xc0]), expected);
}

/// Why the machine asks the processor, and not KVM, whether it has the features of the table.
#[test]
fn kvm_supports_what_the_processor_has_or_what_it_interprets() {
    let kvm = echovisor_machine::cpu::kvm::open().unwrap();
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap();
    let leaf1 = supported.as_slice().iter().find(|entry| entry.function == 1).unwrap();
    // SSSE3 CX16 SSE4.1 SSE4.2 POPCNT
    let wanted = 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
    assert_eq!(__cpuid_count(1, 0).ecx & wanted, wanted, "the processor has them all");
    assert_eq!(leaf1.ecx & wanted == wanted, !is_pvm(), "{:#x}", leaf1.ecx);
}

#[test]
fn the_task_state_segment_is_busy_in_every_saved_state() {
    let memory = Memory::new(MEMORY_MIN).unwrap();
    let mut cpu = KvmCpu::new(&memory).unwrap();
    let mut state = cpu.state().unwrap();
    load(&code(&[NOP]), "", &memory, &mut state).unwrap();
    cpu.set_state(&state).unwrap();
    assert_eq!(cpu.state().unwrap().sregs.tr.type_, 11);
    // Nevertheless ports are open: out dx, eax
    assert!(matches!(ring_3(&[]), End::Ran(_)));
}

#[test]
fn the_fingerprint_names_the_kind_of_kvm() {
    let here = Fingerprint::of_host().unwrap();
    assert!(here.to_string().contains(&format!("KVM {}, ", Flavour::of_host())), "{here}");
    assert_eq!(here.digest(), Fingerprint::of_host().unwrap().digest());
}
/// Whether a delivery was interrupted by the host, which had to map the stack first, shows in what KVM keeps of it.
#[test]
fn nothing_is_left_of_an_exception_that_was_delivered() {
    // mov ebx, 8; mov [rbx], eax
    let mut machine = machine(&[0xbb, 8, 0, 0, 0, 0x89, 0x03]);
    assert!(matches!(machine.run(&mut Silence).unwrap(), Stop::Crashed(_)));
    machine.settle().unwrap();
    let events = machine.cpu().state().unwrap().canonical().events;
    assert_eq!(events.exception, Exception::default());
    assert_eq!((events.exception_has_payload, events.exception_payload), (0, 0));
}
