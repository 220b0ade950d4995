//! A guest that ends.

use super::wait_tick;
use crate::{
    boot::layout::{IMAGE_BASE, POWER_PORT},
    cpu::scripted::{Assembler, Condition, Program, Register, Width},
};

/// Waits `ticks` times for input or the next tick, and then powers off with `code`.
#[must_use]
pub fn powers_off(ticks: u64, code: u32) -> Program {
    let [scratch, done, limit] = [1, 2, 3].map(Register::new);
    let mut asm = Assembler::new(IMAGE_BASE);
    asm.set(limit, ticks);
    let (tick, end) = (asm.label(), asm.label());
    asm.place(tick);
    asm.branch(Condition::Equal, done, limit, end);
    wait_tick(&mut asm, scratch);
    asm.add(done, 1);
    asm.jump(tick);
    asm.place(end);
    asm.set(scratch, code.into());
    asm.output(Width::Double, scratch, POWER_PORT);
    asm.halt();
    asm.finish()
}
