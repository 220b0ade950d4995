//! Bare guests of a few instructions on a real vCPU. They need `/dev/kvm`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test is the machine's outside: it kicks and waits"
)]

mod elf_file;

use std::{
    convert::Infallible,
    thread,
    time::{Duration, Instant},
};

use echovisor_event::{
    Digest, Effect, Position,
    limits::{MEMORY_MIN, MEMORY_STEP, PAGE_SIZE},
};
use echovisor_machine::{
    Effects, Here, Machine, MachineConfig, Memory, Next, Stop, World,
    boot::{
        Crash, boot,
        layout::{CONTROL, HIGH_MEMORY, LOW_MEMORY_END},
        load,
    },
    cpu::{
        Cpu, CpuState, Exit, Reason,
        kvm::{KvmCpu, KvmState},
    },
};
use elf_file::code;
use vm_memory::{Bytes, GuestAddress};

/// Where the guests keep what tests look at.
const DATA: u64 = 0x30_0000;
/// The guests' first instruction.
const ENTRY: u64 = 0x20_0000;
const WINDOW: u64 = 0xE000_0000;

/// `out 0x604, eax`: power off with the exit code in EAX.
const POWER_OFF: [u8; 6] = [0xba, 0x04, 0x06, 0, 0, 0xef];

fn config() -> MachineConfig {
    MachineConfig {
        memory: MEMORY_MIN,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        guest: "test".into(),
        arguments: "name=value".into(),
        program: Digest::default(),
    }
}

fn machine(parts: &[&[u8]]) -> Machine<KvmCpu> {
    boot(&config(), &code(&parts.concat())).unwrap_or_else(|error| panic!("this test needs KVM: {error}"))
}

/// The processor alone, at the guest's first instruction.
fn cpu(parts: &[&[u8]]) -> (KvmCpu, Memory) {
    let memory = Memory::new(MEMORY_MIN).unwrap();
    let mut cpu = KvmCpu::new(&memory).unwrap_or_else(|error| panic!("this test needs KVM: {error}"));
    let mut state = cpu.state().unwrap();
    load(&code(&parts.concat()), "", &memory, &mut state).unwrap();
    cpu.set_state(&state).unwrap();
    (cpu, memory)
}

fn peek(memory: &Memory, address: u64) -> u64 {
    memory.mmap().read_obj(GuestAddress(address)).unwrap()
}

/// An exit without its borrow. Reads are answered with the bytes 0xa0, 0xa1 and so on.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Out(u16, u8, Vec<u8>),
    In(u16, u8, usize),
    Write(u64, Vec<u8>),
    Read(u64, usize),
    Kicked,
}

fn serve(exit: Exit<'_>) -> Left {
    let fill = |data: &mut [u8]| data.iter_mut().zip(0xa0..).for_each(|(byte, value)| *byte = value);
    match exit.reason {
        Reason::PortWrite { port, width, data } => Left::Out(port, width, data.to_vec()),
        Reason::PortRead { port, width, data } => {
            fill(data);
            Left::In(port, width, data.len())
        }
        Reason::MmioWrite { address, data } => Left::Write(address, data.to_vec()),
        Reason::MmioRead { address, data } => {
            fill(data);
            Left::Read(address, data.len())
        }
        Reason::Kicked => Left::Kicked,
    }
}

fn enter(cpu: &mut KvmCpu) -> Left {
    serve(cpu.enter().unwrap())
}

fn complete(cpu: &mut KvmCpu) -> Option<Left> {
    cpu.complete().unwrap().map(serve)
}

/// Pauses at this position, or never; nothing happens to the guest.
struct Silence(Option<Position>);

impl Effects for Silence {
    fn effect(&mut self, _: Position, _: Effect<'_>) {}
}

impl World for Silence {
    type Error = Infallible;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, Infallible> {
        Ok(if self.0.is_some_and(|at| here.position >= at) { Next::Pause } else { Next::Enter })
    }
}

fn crash(parts: &[&[u8]]) -> Crash {
    match machine(parts).run(&mut Silence(None)).unwrap() {
        Stop::Crashed(crash) => *crash,
        stop => panic!("{stop:?}"),
    }
}

/// Writes to one page of every three from 4 MiB on, with an exit behind each.
const STRIDES: &[&[u8]] = &[
    &[0xbf, 0, 0, 0x40, 0],          // mov edi, 0x400000
    &[0x89, 0x3f],                   // mov [rdi], edi
    &[0x81, 0xc7, 0x00, 0x30, 0, 0], // add edi, 0x3000
    &[0xe6, 0x80],                   // out 0x80, al
    &[0xeb, 0xf4],                   // back to the store
];

#[test]
fn no_page_changes_that_is_not_on_the_account() {
    let mut machine = machine(STRIDES);
    let pages = |machine: &Machine<KvmCpu>| -> Vec<_> {
        let mut page = [0; PAGE_SIZE];
        let read = |index| {
            machine.memory().read_page(index, &mut page);
            page
        };
        (0..machine.memory().pages()).map(read).collect()
    };
    let consumer = machine.track_pages().unwrap();
    assert_eq!(machine.changed_pages(&consumer).unwrap().len(), machine.memory().pages(), "all are new");
    for step in [1, 1, 5, 40, 2] {
        let before = pages(&machine);
        let to = Position(machine.position().0 + step);
        assert!(matches!(machine.run(&mut Silence(Some(to))).unwrap(), Stop::Paused));
        let changed = machine.changed_pages(&consumer).unwrap();
        let after = pages(&machine);
        let differ: Vec<usize> = (0..after.len()).filter(|index| before[*index] != after[*index]).collect();
        assert_eq!(differ.len() as u64, step, "the guest writes to a page in each step");
        assert!(differ.iter().all(|index| changed.contains(*index)), "{differ:?} not all in {changed:?}");
        assert!(
            changed.len() < after.len() / 4,
            "{} pages: that is no account of what was written",
            changed.len()
        );
    }
    assert!(machine.changed_pages(&consumer).unwrap().is_empty(), "told once");
}

/// A machine with more memory than fits below the devices, whose guest stores an address there, and ends.
fn stores_at(addresses: &[u64]) -> Machine<KvmCpu> {
    let mut text = Vec::new();
    for address in addresses {
        // mov rdi, address; mov [rdi], rdi
        text.extend([0x48, 0xbf]);
        text.extend(address.to_le_bytes());
        text.extend([0x48, 0x89, 0x3f]);
    }
    text.extend(POWER_OFF);
    let config = MachineConfig { memory: LOW_MEMORY_END + 2 * MEMORY_STEP, ..config() };
    boot(&config, &code(&text)).unwrap_or_else(|error| panic!("this test needs KVM: {error}"))
}

#[test]
fn memory_above_4_gib_is_the_guests_and_on_the_account() {
    let end = HIGH_MEMORY + 2 * MEMORY_STEP;
    let addresses = [LOW_MEMORY_END - 4096, HIGH_MEMORY, HIGH_MEMORY + 0x3008, end - 8];
    let mut machine = stores_at(&addresses);
    assert_eq!(machine.cpu().state().unwrap().regs.rsp, LOW_MEMORY_END - 8);
    let consumer = machine.track_pages().unwrap();
    machine.changed_pages(&consumer).unwrap();
    assert!(matches!(machine.run(&mut Silence(None)).unwrap(), Stop::PoweredOff(_)));
    let changed = machine.changed_pages(&consumer).unwrap();
    for address in addresses {
        assert_eq!(peek(machine.memory(), address), address);
        let page = (0..machine.memory().pages()).find(|page| Memory::page_address(*page) == address & !0xfff);
        assert!(changed.contains(page.unwrap()), "{address:#x}");
    }
}

#[test]
fn between_the_parts_of_memory_and_behind_them_every_access_faults() {
    for address in [LOW_MEMORY_END, HIGH_MEMORY - 8, HIGH_MEMORY + 2 * MEMORY_STEP] {
        match stores_at(&[address]).run(&mut Silence(None)).unwrap() {
            Stop::Crashed(crash) => assert_eq!((crash.vector, crash.address), (14, address)),
            stop => panic!("{address:#x}: {stop:?}"),
        }
    }
}

#[test]
fn what_is_saved_is_all_that_kvm_tells() {
    let mut machine = machine(STRIDES);
    for to in 1..20 {
        assert_eq!(machine.save().unwrap().cpu, CpuState::Kvm(Box::new(machine.cpu().state().unwrap())));
        assert!(matches!(machine.run(&mut Silence(Some(Position(to)))).unwrap(), Stop::Paused));
    }
}

#[test]
fn a_guest_is_entered_as_documented() {
    let machine = machine(&[&[0xeb, 0xfe]]);
    let state = machine.cpu().state().unwrap();
    let regs = &state.regs;
    assert_eq!((regs.rip, regs.rsp, regs.rdi, regs.rflags), (ENTRY, MEMORY_MIN - 8, CONTROL, 2));
    let others = [regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rbp, regs.r8, regs.r9, regs.r10];
    assert_eq!(others, [0; 9]);
    assert_eq!([regs.r11, regs.r12, regs.r13, regs.r14, regs.r15], [0; 5]);
    let control = machine.memory();
    assert_eq!(&peek(control, CONTROL).to_le_bytes(), b"CHOVISOR");
    assert_eq!(peek(control, CONTROL + 8), 1 | 10 << 32);
    assert_eq!((peek(control, CONTROL + 16), peek(control, CONTROL + 24)), (MEMORY_MIN, ENTRY + 0x1000));
    let mut arguments = [0; 11];
    control.mmap().read_slice(&mut arguments, GuestAddress(CONTROL + 1024)).unwrap();
    assert_eq!(&arguments, b"name=value\0");
}

#[test]
fn ports_are_open_and_have_widths() {
    // mov eax, 0x11223344; mov edx, 0xfff8; out dx, al; out dx, ax; out dx, eax; in al, dx; mov [DATA], eax;
    // in ax, dx; mov [DATA + 8], eax; in eax, dx; mov [DATA + 16], eax; out dx, al
    let (mut cpu, memory) = cpu(&[
        &[0xb8, 0x44, 0x33, 0x22, 0x11, 0xba, 0xf8, 0xff, 0, 0, 0xee, 0x66, 0xef, 0xef],
        &[0xec, 0x89, 0x04, 0x25, 0, 0, 0x30, 0, 0x66, 0xed, 0x89, 0x04, 0x25, 8, 0, 0x30, 0],
        &[0xed, 0x89, 0x04, 0x25, 16, 0, 0x30, 0, 0xee],
    ]);
    let port = 0xfff8;
    assert_eq!(enter(&mut cpu), Left::Out(port, 1, vec![0x44]));
    assert_eq!(enter(&mut cpu), Left::Out(port, 2, vec![0x44, 0x33]));
    assert_eq!(enter(&mut cpu), Left::Out(port, 4, vec![0x44, 0x33, 0x22, 0x11]));
    for width in [1, 2, 4] {
        assert_eq!(enter(&mut cpu), Left::In(port, width, width.into()));
    }
    assert_eq!(enter(&mut cpu), Left::Out(port, 1, vec![0xa0]));
    let read = [DATA, DATA + 8, DATA + 16].map(|address| peek(&memory, address));
    assert_eq!(read, [0x1122_33a0, 0x1122_a1a0, 0xa3a2_a1a0]);
}

/// How many items an exit has is KVM's choice, the bytes are not.
#[test]
fn string_instructions_move_all_their_items() {
    // mov esi, DATA; mov ecx, 6; mov edx, 0x1234; rep outsb; mov edi, DATA + 16; mov ecx, 3; rep insw; out dx, al
    let (mut cpu, memory) = cpu(&[
        &[0xbe, 0, 0, 0x30, 0, 0xb9, 6, 0, 0, 0, 0xba, 0x34, 0x12, 0, 0, 0xf3, 0x6e],
        &[0xbf, 16, 0, 0x30, 0, 0xb9, 3, 0, 0, 0, 0x66, 0xf3, 0x6d, 0xee],
    ]);
    memory.mmap().write_slice(b"string", GuestAddress(DATA)).unwrap();
    let (mut out, mut input) = (Vec::new(), 0);
    loop {
        match enter(&mut cpu) {
            Left::Out(0x1234, 1, bytes) if out.len() < 6 => out.extend(bytes),
            Left::In(0x1234, 2, length) => input += length,
            Left::Out(0x1234, 1, _) => break,
            left => panic!("{left:?}"),
        }
    }
    assert_eq!((out.as_slice(), input), (&b"string"[..], 6));
    let mut read = [0; 8];
    memory.mmap().read_slice(&mut read, GuestAddress(DATA + 16)).unwrap();
    assert!(read[..6].iter().all(|byte| *byte >= 0xa0) && read[6..] == [0, 0], "{read:x?}");
}

#[test]
fn the_window_is_reached_in_all_widths() {
    // mov ebx, WINDOW; mov al, [rbx]; mov ax, [rbx+2]; mov eax, [rbx+4]; mov rax, [rbx+8]; mov [rbx+16], rax;
    // mov [rbx+24], al
    let (mut cpu, _) = cpu(&[
        &[0xbb, 0, 0, 0, 0xe0, 0x8a, 0x03, 0x66, 0x8b, 0x43, 2, 0x8b, 0x43, 4, 0x48, 0x8b, 0x43, 8],
        &[0x48, 0x89, 0x43, 16, 0x88, 0x43, 24],
    ]);
    for (offset, width) in [(0, 1), (2, 2), (4, 4), (8, 8)] {
        assert_eq!(enter(&mut cpu), Left::Read(WINDOW + offset, width));
    }
    let bytes = (0xa0..0xa8).collect();
    assert_eq!(enter(&mut cpu), Left::Write(WINDOW + 16, bytes));
    assert_eq!(enter(&mut cpu), Left::Write(WINDOW + 24, vec![0xa0]));
}

/// `mov esi, WINDOW; mov edi, WINDOW + 8; movsd`: two exits in one instruction.
const SPLIT: [u8; 11] = [0xbe, 0, 0, 0, 0xe0, 0xbf, 8, 0, 0, 0xe0, 0xa5];

#[test]
fn completing_an_instruction_serves_its_other_exits_and_runs_no_other() {
    let (mut cpu, _) = cpu(&[&SPLIT, &POWER_OFF]);
    assert_eq!(enter(&mut cpu), Left::Read(WINDOW, 4));
    assert_eq!(complete(&mut cpu), Some(Left::Write(WINDOW + 8, vec![0xa0, 0xa1, 0xa2, 0xa3])));
    assert_eq!(complete(&mut cpu), None);
    let regs = cpu.state().unwrap().regs;
    assert_eq!((regs.rip, regs.rsi, regs.rdi), (ENTRY + 11, WINDOW + 4, WINDOW + 12));
    assert_eq!(complete(&mut cpu), None, "a complete instruction stays complete");
    assert_eq!(enter(&mut cpu), Left::Out(0x604, 4, vec![0; 4]));
}

#[test]
fn a_pause_in_the_middle_of_an_instruction_comes_behind_it() {
    let mut machine = machine(&[&SPLIT, &POWER_OFF]);
    let stop = machine.run(&mut Silence(Some(Position(1)))).unwrap();
    assert!(matches!(stop, Stop::Paused));
    assert_eq!(machine.position(), Position(2));
    machine.save().unwrap();
    assert!(matches!(machine.run(&mut Silence(None)).unwrap(), Stop::PoweredOff(0)));
    assert_eq!(machine.position(), Position(3));
}

#[test]
fn an_exception_ends_the_guest_with_its_name() {
    // xor ecx, ecx; div ecx
    let found = crash(&[&[0x31, 0xc9, 0xf7, 0xf1]]);
    assert_eq!((found.vector, found.rip, found.name()), (0, ENTRY + 2, "divide error"));
    // int3: a trap, so what follows it is named.
    assert_eq!((crash(&[&[0xcc]]).vector, crash(&[&[0xcc]]).rip), (3, ENTRY + 1));
    // ud2, with something in every register: mov r15d, 15; mov eax, 1; mov edx, 2; mov ebx, 3
    let registers =
        [0x41, 0xbf, 15, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xba, 2, 0, 0, 0, 0xbb, 3, 0, 0, 0, 0x0f, 0x0b];
    let found = crash(&[&registers]);
    assert_eq!((found.vector, found.rip, found.rsp), (6, ENTRY + 21, MEMORY_MIN - 8));
    assert_eq!((found.registers[0], found.registers[1], found.registers[3]), (1, 3, 2), "RAX, RBX, RDX");
    assert_eq!((found.registers[5], found.registers[14]), (CONTROL, 15), "RDI, R15");
}

#[test]
fn ring_3_may_execute_nothing_that_is_privileged() {
    // cli; hlt; rdmsr; mov cr0, rax; lidt [rdi]
    for instruction in [&[0xfa][..], &[0xf4], &[0x0f, 0x32], &[0x0f, 0x22, 0xc0], &[0x0f, 0x01, 0x1f]] {
        let found = crash(&[instruction]);
        assert_eq!((found.vector, found.rip), (13, ENTRY), "{instruction:x?}: {found}");
    }
}

#[test]
fn memory_that_is_not_the_guests_faults() {
    const USER: u64 = 4;
    const PRESENT: u64 = 1;
    const WRITE: u64 = 2;
    for (address, error_code) in [
        (0, USER),
        (0x1000, USER | PRESENT),
        (0xf_f000, USER | PRESENT),
        (CONTROL + 0x1000, USER),
        (MEMORY_MIN, USER),
        (WINDOW - 8, USER),
    ] {
        // mov ebx, address; mov rax, [rbx]
        let read = [&[0xbb][..], &(address as u32).to_le_bytes(), &[0x48, 0x8b, 0x03]].concat();
        let found = crash(&[&read]);
        assert_eq!((found.vector, found.address, found.rip), (14, address, ENTRY + 5), "{found}");
        assert_eq!(found.error_code, error_code, "{address:#x}");
        let write = [&[0xbb][..], &(address as u32).to_le_bytes(), &[0x48, 0x89, 0x03]].concat();
        assert_eq!(crash(&[&write]).error_code, error_code | WRITE, "{address:#x}");
    }
    // mov eax, CONTROL; jmp rax: data is no code.
    let found = crash(&[&[0xb8, 0, 0, 0x10, 0, 0xff, 0xe0]]);
    assert_eq!((found.vector, found.address, found.rip), (14, CONTROL, CONTROL));
}

/// Waits for what another thread's guest does.
fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited for {what}");
        thread::yield_now();
    }
}

#[test]
fn a_guest_that_loops_can_be_called_out_and_goes_on() {
    // again: inc qword [DATA + 8]; cmp dword [DATA], 0; je again; mov eax, 5
    let mut machine = machine(&[
        &[0x48, 0xff, 0x04, 0x25, 8, 0, 0x30, 0, 0x83, 0x3c, 0x25, 0, 0, 0x30, 0, 0, 0x74, 0xee],
        &[0xb8, 5, 0, 0, 0],
        &POWER_OFF,
    ]);
    let (memory, kicker) = (machine.memory().clone(), machine.cpu().kicker());
    for _ in 0..5 {
        let before = peek(&memory, DATA + 8);
        let (memory, kicker) = (memory.clone(), machine.cpu().kicker());
        let kicking = thread::spawn(move || {
            wait_for("the guest to loop", || peek(&memory, DATA + 8) > before);
            kicker.kick();
        });
        assert!(matches!(machine.run(&mut Silence(None)).unwrap(), Stop::Kicked));
        assert_eq!(machine.position(), Position::BOOT, "a kick is no step of the guest");
        assert!(machine.save().is_err(), "the guest is between two instructions that no position names");
        kicking.join().unwrap();
    }
    memory.mmap().write_obj(1_u32, GuestAddress(DATA)).unwrap();
    // A kick that comes before the entry is not lost.
    kicker.kick();
    assert!(matches!(machine.run(&mut Silence(None)).unwrap(), Stop::Kicked));
    assert!(matches!(machine.run(&mut Silence(None)).unwrap(), Stop::PoweredOff(5)));
    drop(machine);
    kicker.kick();
}

/// Computes with x87 and SSE in rounding modes of its own, shows its results at a port, reads and copies across exits.
fn computer() -> Vec<u8> {
    [
        // mov dword [DATA + 32], 0x7f80; ldmxcsr [DATA + 32]; mov dword [DATA + 36], 0x0c7f; fldcw [DATA + 36]
        &[0xc7, 0x04, 0x25, 32, 0, 0x30, 0, 0x80, 0x7f, 0, 0, 0x0f, 0xae, 0x14, 0x25, 32, 0, 0x30, 0][..],
        &[0xc7, 0x04, 0x25, 36, 0, 0x30, 0, 0x7f, 0x0c, 0, 0, 0xd9, 0x2c, 0x25, 36, 0, 0x30, 0],
        // mov eax, 3; cvtsi2sd xmm0, eax; movaps xmm15, xmm0; fldpi; mov edx, 0x1234; mov esi, WINDOW
        &[0xb8, 3, 0, 0, 0, 0xf2, 0x0f, 0x2a, 0xc0, 0x44, 0x0f, 0x28, 0xf8, 0xd9, 0xeb],
        &[0xba, 0x34, 0x12, 0, 0, 0xbe, 0, 0, 0, 0xe0],
        // again: sqrtsd xmm1, xmm0; addsd xmm0, xmm1; mulsd xmm15, xmm1
        &[0xf2, 0x0f, 0x51, 0xc8, 0xf2, 0x0f, 0x58, 0xc1, 0xf2, 0x44, 0x0f, 0x59, 0xf9],
        // fld1; faddp; fst qword [DATA + 16]; movsd [DATA + 24], xmm15
        &[
            0xd9, 0xe8, 0xde, 0xc1, 0xdd, 0x14, 0x25, 16, 0, 0x30, 0, 0xf2, 0x44, 0x0f, 0x11, 0x3c, 0x25, 24,
            0, 0x30, 0,
        ],
        // mov eax, [DATA + 16]; xor eax, [DATA + 24]; out dx, eax; in al, dx
        &[0x8b, 0x04, 0x25, 16, 0, 0x30, 0, 0x33, 0x04, 0x25, 24, 0, 0x30, 0, 0xef, 0xec],
        // lea rdi, [rsi + 8]; movsq; sub esi, 8; jmp again
        &[0x48, 0x8d, 0x7e, 8, 0x48, 0xa5, 0x83, 0xee, 8, 0xeb, 0xc3],
    ]
    .concat()
}

/// Where a machine stands, and all that must be equal there.
fn standing(machine: &Machine<KvmCpu>) -> (Position, u64, KvmState, u64) {
    let state = machine.cpu().state().unwrap().canonical();
    (machine.position(), machine.trail().0, state, peek(machine.memory(), DATA + 24))
}

/// Wherever it is paused, and in whatever virtual machine it goes on, the guest is the same.
#[test]
fn pauses_and_new_virtual_machines_change_nothing() {
    const POSITIONS: u64 = 200;
    let program = computer();
    let mut straight = machine(&[&program]);
    assert!(matches!(straight.run(&mut Silence(Some(Position(POSITIONS)))).unwrap(), Stop::Paused));
    let end = standing(&straight);
    assert!(
        end.3 != 0 && end.2.fpu.xmm[15] != [0; 16] && end.2.fpu.mxcsr & 0x6000 == 0x6000,
        "{:?}",
        end.2.fpu
    );

    let (mut paused, mut moved) = (machine(&[&program]), machine(&[&program]));
    for position in 1..=POSITIONS {
        for machine in [&mut paused, &mut moved] {
            let stop = machine.run(&mut Silence(Some(Position(position)))).unwrap();
            assert!(matches!(stop, Stop::Paused), "at position {position}: {stop:?}");
        }
        let (state, memory) = (moved.save().unwrap(), moved.memory().clone());
        let cpu = KvmCpu::new(&memory).unwrap();
        moved = Machine::restore(cpu, memory, &config().devices(), &state).unwrap();
        assert_eq!(standing(&moved), standing(&paused), "at position {position}");
    }
    assert_eq!(standing(&paused), end);
}

#[test]
fn a_state_of_another_processor_is_refused() {
    let machine = machine(&[&[0xeb, 0xfe]]);
    let mut state = machine.save().unwrap();
    state.cpu = echovisor_machine::cpu::CpuState::Scripted(Default::default());
    let memory = machine.memory().clone();
    let cpu = KvmCpu::new(&memory).unwrap();
    assert!(Machine::restore(cpu, memory, &config().devices(), &state).is_err());
}
