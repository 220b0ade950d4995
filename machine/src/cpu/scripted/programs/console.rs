//! A guest that ticks, echoes what is typed, and counts.

use super::{DATA, ZERO, wait_tick};
use crate::{
    boot::layout::{CONSOLE_PORT, IMAGE_BASE},
    cpu::scripted::{Assembler, Condition, Operation, Program, Register, Width},
};

/// Where [`console_counter`] counts how often it went round, u64.
pub const COUNTER: u64 = DATA;
/// How many rounds of [`console_counter`] lie between two digits that it prints.
pub const TICKS_PER_DIGIT: u64 = 8;

/// The console's line status register.
const LINE_STATUS: u16 = CONSOLE_PORT + 5;
/// Line status: there is input.
const DATA_READY: u64 = 1;

/// For ever: waits for input or the next tick, echoes the console's input, and counts the round at [`COUNTER`]. After
/// every [`TICKS_PER_DIGIT`] rounds it prints a digit, from `0` to `9` and over again.
#[must_use]
pub fn console_counter() -> Program {
    let [scratch, count, rounds, digit, limit] = [1, 2, 3, 4, 5].map(Register::new);
    let mut asm = Assembler::new(IMAGE_BASE);
    asm.set(digit, b'0'.into());

    let round = asm.here();
    wait_tick(&mut asm, scratch);

    let (input, counted) = (asm.label(), asm.label());
    asm.place(input);
    asm.input(Width::Byte, scratch, LINE_STATUS);
    asm.compute_immediate(Operation::And, scratch, DATA_READY);
    asm.branch(Condition::Equal, scratch, ZERO, counted);
    asm.input(Width::Byte, scratch, CONSOLE_PORT);
    asm.output(Width::Byte, scratch, CONSOLE_PORT);
    asm.jump(input);

    asm.place(counted);
    asm.load(Width::Quad, count, ZERO, COUNTER);
    asm.add(count, 1);
    asm.store(Width::Quad, count, ZERO, COUNTER);
    asm.add(rounds, 1);
    asm.set(limit, TICKS_PER_DIGIT);
    asm.branch(Condition::NotEqual, rounds, limit, round);

    asm.set(rounds, 0);
    asm.output(Width::Byte, digit, CONSOLE_PORT);
    asm.add(digit, 1);
    asm.set(limit, u64::from(b'9') + 1);
    asm.branch(Condition::NotEqual, digit, limit, round);
    asm.set(digit, b'0'.into());
    asm.jump(round);
    asm.finish()
}
