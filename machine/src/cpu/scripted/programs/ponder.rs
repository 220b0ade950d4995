//! A guest that computes.

use super::{DATA, ZERO, wait_tick};
use crate::{
    boot::layout::{CONSOLE_PORT, CONTROL, IMAGE_BASE, control},
    cpu::scripted::{Assembler, Condition, Operation, Program, Register, Width},
};

/// Where [`ponder`] keeps what it has computed, u64.
pub const THOUGHT: u64 = DATA;

/// For ever: makes `steps` steps without an exit, in each of which the clock goes into what it has computed, at [`THOUGHT`]; then
/// prints a letter that depends on that, and waits for a tick.
#[must_use]
pub fn ponder(steps: u64) -> Program {
    let [scratch, thought, step, limit] = [1, 2, 3, 4].map(Register::new);
    let mut asm = Assembler::new(IMAGE_BASE);
    asm.set(limit, steps);
    let round = asm.here();
    asm.set(step, 0);
    let again = asm.here();
    asm.load(Width::Quad, scratch, ZERO, CONTROL + control::CLOCK);
    asm.load(Width::Quad, thought, ZERO, THOUGHT);
    asm.compute(Operation::Add, thought, scratch);
    asm.add(thought, 1);
    asm.store(Width::Quad, thought, ZERO, THOUGHT);
    asm.add(step, 1);
    asm.branch(Condition::NotEqual, step, limit, again);
    asm.compute_immediate(Operation::And, thought, 15);
    asm.add(thought, u64::from(b'a'));
    asm.output(Width::Byte, thought, CONSOLE_PORT);
    wait_tick(&mut asm, scratch);
    asm.jump(round);
    asm.finish()
}
