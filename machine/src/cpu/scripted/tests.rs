//! The processor alone, and its programs with real devices.

use echovisor_event::{Effect, limits::MEMORY_MIN};

use super::{
    programs::{
        COUNTER, ECHO_CHECKSUM, ECHO_FRAMES, TICK, TICKS_PER_DIGIT, console_counter, echo, echo_checksum,
        powers_off,
    },
    *,
};
use crate::{
    boot::layout::{CONTROL, IMAGE_BASE, control},
    devices::{Context, Devices, DevicesConfig, Request},
};

const A: Register = Register::new(1);
const B: Register = Register::new(2);
const C: Register = Register::new(3);
const D: Register = Register::new(4);

fn memory() -> Memory {
    Memory::new(MEMORY_MIN).unwrap()
}

/// A processor with a program that `write` writes.
fn cpu(write: impl FnOnce(&mut Assembler)) -> ScriptedCpu {
    let mut asm = Assembler::new(IMAGE_BASE);
    write(&mut asm);
    let (program, memory) = (asm.finish(), memory());
    program.load(&memory);
    ScriptedCpu::new(memory, program.entry())
}

/// Runs to the HLT at the end, without an exit before it.
fn run_to_halt(cpu: &mut ScriptedCpu) {
    let error = cpu.enter().expect_err("the program halts").to_string();
    assert!(error.ends_with("HLT"), "{error}");
}

fn stops_with(mut cpu: ScriptedCpu, why: &str) {
    let error = cpu.enter().expect_err(why).to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn computing() {
    let cases = [
        (Operation::Move, 3, 4, 4),
        (Operation::Add, u64::MAX, 2, 1),
        (Operation::Subtract, 1, 2, u64::MAX),
        (Operation::Multiply, 1 << 63, 3, 1 << 63),
        (Operation::And, 0b1100, 0b1010, 0b1000),
        (Operation::Or, 0b1100, 0b1010, 0b1110),
        (Operation::Xor, 0b1100, 0b1010, 0b0110),
        (Operation::ShiftLeft, 1, 68, 16),
        (Operation::ShiftRight, 0x100, 4, 0x10),
    ];
    for (operation, first, second, result) in cases {
        let mut cpu = cpu(|asm| {
            asm.set(A, first);
            asm.set(B, second);
            asm.set(C, first);
            asm.compute(operation, A, B);
            asm.compute_immediate(operation, C, second);
            asm.halt();
        });
        run_to_halt(&mut cpu);
        assert_eq!((cpu.get(A), cpu.get(C)), (result, result), "{operation:?}");
    }
}

#[test]
fn loads_and_stores() {
    for (width, loaded) in [
        (Width::Byte, 0x88),
        (Width::Word, 0x7788),
        (Width::Double, 0x5566_7788),
        (Width::Quad, 0x1122_3344_5566_7788),
    ] {
        let mut cpu = cpu(|asm| {
            asm.set(A, 0x1122_3344_5566_7788);
            asm.set(B, 0x30_0000);
            asm.store(width, A, B, 0x10);
            asm.load(Width::Quad, C, B, 0x10);
            asm.store(Width::Quad, A, B, 0u64.wrapping_sub(8));
            asm.load(width, D, B, 0u64.wrapping_sub(8));
            asm.halt();
        });
        run_to_halt(&mut cpu);
        assert_eq!((cpu.get(C), cpu.get(D)), (loaded, loaded), "{width:?}");
    }
}

#[test]
fn branches() {
    for (condition, first, second, taken) in [
        (Condition::Always, 1, 2, true),
        (Condition::Equal, 1, 1, true),
        (Condition::Equal, 1, 2, false),
        (Condition::NotEqual, 1, 2, true),
        (Condition::NotEqual, 2, 2, false),
        (Condition::Below, 1, u64::MAX, true),
        (Condition::Below, 2, 2, false),
    ] {
        let mut cpu = cpu(|asm| {
            let end = asm.label();
            asm.set(A, first);
            asm.set(B, second);
            asm.branch(condition, A, B, end);
            asm.set(C, 1);
            asm.place(end);
            asm.halt();
        });
        run_to_halt(&mut cpu);
        assert_eq!(cpu.get(C) == 0, taken, "{condition:?} {first} {second}");
    }
}

#[test]
fn ports_and_mmio_are_exits() {
    let mut cpu = cpu(|asm| {
        asm.set(A, 0x1_2345_6789);
        asm.set(B, 0xe000_0000);
        asm.output(Width::Word, A, 0x3f8);
        asm.input(Width::Double, C, 0xcfc);
        asm.store(Width::Quad, A, B, 0x18);
        asm.load(Width::Byte, D, B, 0x14);
        asm.halt();
    });
    let at = |index: u64| IMAGE_BASE + 16 * index;
    match cpu.enter().unwrap() {
        Exit { rip, reason: Reason::PortWrite { port: 0x3f8, width: 2, data: [0x89, 0x67] } } => {
            assert_eq!(rip, at(2));
        }
        exit => panic!("{exit:?}"),
    }
    match cpu.enter().unwrap() {
        Exit { rip, reason: Reason::PortRead { port: 0xcfc, width: 4, data } } => {
            assert_eq!(rip, at(3));
            data.copy_from_slice(&[1, 2, 3, 0x84]);
        }
        exit => panic!("{exit:?}"),
    }
    match cpu.enter().unwrap() {
        Exit { rip, reason: Reason::MmioWrite { address: 0xe000_0018, data } } => {
            assert_eq!((rip, data), (at(4), 0x1_2345_6789u64.to_le_bytes().as_slice()));
        }
        exit => panic!("{exit:?}"),
    }
    match cpu.enter().unwrap() {
        Exit { rip, reason: Reason::MmioRead { address: 0xe000_0014, data } } => {
            assert_eq!((rip, data.len()), (at(5), 1));
            data[0] = 0xff;
        }
        exit => panic!("{exit:?}"),
    }
    run_to_halt(&mut cpu);
    assert_eq!((cpu.get(C), cpu.get(D)), (0x8403_0201, 0xff));
}

#[test]
fn completing_finishes_the_instruction_and_no_more() {
    let mut cpu = cpu(|asm| {
        asm.input(Width::Byte, A, 0x3f8);
        asm.set(B, 1);
        asm.halt();
    });
    match cpu.enter().unwrap().reason {
        Reason::PortRead { data, .. } => data[0] = 7,
        reason => panic!("{reason:?}"),
    }
    assert!(cpu.save().is_err(), "no boundary yet");
    assert!(cpu.complete().unwrap().is_none());
    let CpuState::Scripted(state) = cpu.save().unwrap() else { panic!("of another processor") };
    assert_eq!((state.registers[1], state.registers[2], state.pc), (7, 0, IMAGE_BASE + 16));
    assert!(cpu.complete().unwrap().is_none(), "completing twice is harmless");
}

#[test]
fn one_instruction_can_have_two_exits() {
    // From MMIO to MMIO; the second exit comes by `complete` as well as by `enter`.
    for complete in [false, true] {
        let mut cpu = cpu(|asm| {
            asm.set(A, 0xe000_0000);
            asm.set(B, 0xe000_1000);
            asm.copy(Width::Double, B, A);
            asm.halt();
        });
        match cpu.enter().unwrap().reason {
            Reason::MmioRead { address: 0xe000_0000, data } => data.copy_from_slice(b"data"),
            reason => panic!("{reason:?}"),
        }
        assert!(cpu.save().is_err());
        let exit = if complete { cpu.complete().unwrap().unwrap() } else { cpu.enter().unwrap() };
        match exit {
            Exit { rip, reason: Reason::MmioWrite { address: 0xe000_1000, data: b"data" } } => {
                assert_eq!(rip, IMAGE_BASE + 32);
            }
            exit => panic!("{exit:?}"),
        }
        assert!(cpu.complete().unwrap().is_none());
        cpu.save().unwrap();
        run_to_halt(&mut cpu);
    }
}

#[test]
fn a_copy_may_have_one_exit_or_none() {
    let mut cpu = cpu(|asm| {
        asm.set(A, 0x30_0000);
        asm.set(B, 0x30_0100);
        asm.set(C, 0xe000_0000);
        asm.set(D, 42);
        asm.store(Width::Quad, D, A, 0);
        asm.copy(Width::Quad, B, A);
        asm.copy(Width::Quad, C, B);
        asm.copy(Width::Word, A, C);
        asm.load(Width::Quad, D, A, 0);
        asm.halt();
    });
    match cpu.enter().unwrap().reason {
        Reason::MmioWrite { address: 0xe000_0000, data } => assert_eq!(data, 42u64.to_le_bytes()),
        reason => panic!("{reason:?}"),
    }
    match cpu.enter().unwrap().reason {
        Reason::MmioRead { address: 0xe000_0000, data } => data.copy_from_slice(&[1, 2]),
        reason => panic!("{reason:?}"),
    }
    run_to_halt(&mut cpu);
    assert_eq!(cpu.get(D), 0x201);
}

#[test]
fn a_restored_processor_goes_on_like_the_saved_one() {
    let program = console_counter();
    let (one, two) = (memory(), memory());
    program.load(&one);
    program.load(&two);
    let mut original = ScriptedCpu::new(one, program.entry());
    original.enter().unwrap();
    assert!(original.complete().unwrap().is_none());
    let state = original.save().unwrap();
    let mut restored = ScriptedCpu::new(two, 0);
    restored.restore(&state).unwrap();
    assert_eq!(restored.save().unwrap(), state);
    for _ in 0..10 {
        assert_eq!(format!("{:?}", restored.enter().unwrap()), format!("{:?}", original.enter().unwrap()));
    }
}

#[test]
fn a_kick_calls_out_between_two_instructions() {
    let mut cpu = cpu(|asm| {
        let forever = asm.here();
        asm.input(Width::Byte, A, 0x3f8);
        asm.jump(forever);
    });
    let kicker = cpu.kicker();
    kicker.kick();
    kicker.kick();
    assert!(matches!(cpu.enter().unwrap(), Exit { rip: IMAGE_BASE, reason: Reason::Kicked }));
    cpu.save().expect("it stands at a boundary");
    // One that comes while an exit is served waits until the instruction is complete.
    match cpu.enter().unwrap().reason {
        Reason::PortRead { data, .. } => data[0] = 7,
        reason => panic!("{reason:?}"),
    }
    kicker.kick();
    assert!(matches!(cpu.enter().unwrap().reason, Reason::Kicked));
    assert_eq!(cpu.get(A), 7);
    cpu.save().expect("it stands at a boundary");
}

#[test]
fn what_nobody_serves_is_an_error() {
    stops_with(cpu(|asm| asm.halt()), "HLT");
    stops_with(ScriptedCpu::new(memory(), IMAGE_BASE), "HLT");
    stops_with(ScriptedCpu::new(memory(), MEMORY_MIN), "a jump outside RAM");
    stops_with(ScriptedCpu::new(memory(), MEMORY_MIN - 15), "a jump outside RAM");
    stops_with(ScriptedCpu::new(memory(), u64::MAX), "a jump outside RAM");
    let crooked = memory();
    crooked.mmap().write_obj(0xffu8, GuestAddress(IMAGE_BASE)).unwrap();
    stops_with(ScriptedCpu::new(crooked, IMAGE_BASE), "an invalid instruction");
    stops_with(cpu(|asm| asm.load(Width::Quad, B, A, MEMORY_MIN - 4)), "a load across the end of RAM");
    stops_with(cpu(|asm| asm.store(Width::Word, B, A, MEMORY_MIN - 1)), "a store across the end of RAM");
}

#[test]
fn an_endless_loop_is_an_error() {
    let mut cpu = cpu(|asm| {
        let forever = asm.here();
        asm.jump(forever);
    });
    let error = cpu.run(1000).err().expect("the loop never ends").to_string();
    assert!(error.contains("an endless loop"), "{error}");
}

/// Runs a program with devices, in place of the machine's run loop.
struct Bench {
    cpu: ScriptedCpu,
    devices: Devices,
    memory: Memory,
    frames: Vec<Vec<u8>>,
    console: Vec<u8>,
    doorbells: usize,
}

impl Bench {
    fn new(program: &Program) -> Bench {
        let memory = memory();
        program.load(&memory);
        let config = DevicesConfig { mac: Some([2, 0, 0, 0, 0, 1]), mtu: 1500 };
        Bench {
            cpu: ScriptedCpu::new(memory.clone(), program.entry()),
            devices: Devices::new(&config),
            memory,
            frames: Vec::new(),
            console: Vec::new(),
            doorbells: 0,
        }
    }

    /// Runs until the guest waits (`None`) or has powered off.
    fn run(&mut self) -> Option<u32> {
        loop {
            let mut effects = |effect: Effect<'_>| match effect {
                Effect::Frame(frame) => self.frames.push(frame.to_vec()),
                Effect::Console(bytes) => self.console.extend(bytes),
                Effect::PowerOff(_) => panic!("the run loop reports that"),
            };
            let mut context = Context { memory: &self.memory, effects: &mut effects };
            match self.cpu.enter().unwrap().reason {
                Reason::PortWrite { port, data, .. } => {
                    match self.devices.port_write(port, data, &mut context) {
                        Request::None => {}
                        Request::Wait => {
                            self.doorbells += 1;
                            return None;
                        }
                        Request::PowerOff(code) => return Some(code),
                        Request::Crash => panic!("the guest crashed"),
                    }
                }
                Reason::PortRead { port, data, .. } => self.devices.port_read(port, data),
                Reason::MmioWrite { address, data } => self.devices.mmio_write(address, data, &mut context),
                Reason::MmioRead { address, data } => self.devices.mmio_read(address, data),
                Reason::Kicked => panic!("nobody kicked"),
            }
        }
    }

    /// Lets the deadline that the guest has set pass.
    fn sleep(&mut self) {
        let deadline: u64 = self.get(CONTROL + control::DEADLINE);
        let clock: u64 = self.get(CONTROL + control::CLOCK);
        assert_eq!(deadline, clock + TICK);
        self.memory.mmap().write_obj(deadline, GuestAddress(CONTROL + control::CLOCK)).unwrap();
    }

    fn get(&self, address: u64) -> u64 {
        self.memory.mmap().read_obj(GuestAddress(address)).unwrap()
    }
}

#[test]
fn console_counter_counts_echoes_and_prints_digits() {
    let mut bench = Bench::new(&console_counter());
    for round in 0..12 * TICKS_PER_DIGIT {
        assert_eq!(bench.run(), None);
        assert_eq!(bench.get(COUNTER), round);
        bench.sleep();
        if round == 3 {
            bench.devices.receive_console(b"echo ").unwrap();
        }
    }
    bench.run();
    assert_eq!(bench.console, b"echo 012345678901");
}

#[test]
fn powers_off_after_its_ticks() {
    let mut bench = Bench::new(&powers_off(3, 42));
    for _ in 0..3 {
        assert_eq!(bench.run(), None);
        bench.sleep();
    }
    assert_eq!(bench.run(), Some(42));
}

#[test]
fn echo_sends_every_frame_back() {
    for size in [16, 64] {
        let mut bench = Bench::new(&echo(size));
        assert_eq!(bench.run(), None);
        assert_eq!(bench.devices.frames_wanted(&bench.memory), usize::from(size));
        let (mut count, mut checksum, mut expected) = (0, 0, Vec::new());
        // Bursts of all lengths, more frames in all than the rings have entries.
        for burst in 0..=usize::from(size) {
            for index in 0..burst {
                let length = [14, 15, 60, 61, 590, 1514, 2036][(burst + index) % 7];
                let frame: Vec<u8> = (0..length).map(|at| (at * 7 + burst * 3 + index) as u8).collect();
                bench.devices.receive_frame(&frame, &bench.memory).unwrap();
                count += 1;
                checksum = echo_checksum(checksum, &frame);
                let mut back = frame.clone();
                back[..6].copy_from_slice(&frame[6..12]);
                back[6..12].copy_from_slice(&frame[..6]);
                expected.push(back);
            }
            assert_eq!(bench.run(), None);
            assert_eq!(bench.frames, expected);
        }
        assert_eq!(bench.doorbells, 2 + usize::from(size), "one per burst, and one to begin with");
        assert_eq!((bench.get(ECHO_FRAMES), bench.get(ECHO_CHECKSUM)), (count, checksum));
        assert_eq!(bench.devices.fault(), None);
    }
}
