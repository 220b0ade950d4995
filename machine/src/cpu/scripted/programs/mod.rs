//! Guests for tests. Each needs no more than the smallest memory, and follows `docs/guest-abi.md` as a bare guest
//! would.

mod console;
mod echo;
mod ponder;
mod power;

pub use self::{
    console::{COUNTER, TICKS_PER_DIGIT, console_counter},
    echo::{ECHO_CHECKSUM, ECHO_FRAMES, ECHO_QUEUE_MAX, LEDGER, echo, echo_checksum, ledger},
    ponder::{THOUGHT, ponder},
    power::powers_off,
};
use super::{Assembler, Operation, Register, Width};
use crate::boot::layout::{CONTROL, DOORBELL_PORT, control};

/// Virtual time from one tick of the ticking programs to the next, ns.
pub const TICK: u64 = 1_000_000;

/// Where the programs keep what tests may look at.
const DATA: u64 = 0x30_0000;

/// Always zero; no program writes it.
const ZERO: Register = Register::new(0);

/// Sleeps until there is input, at most for one tick. Overwrites `scratch`.
fn wait_tick(asm: &mut Assembler, scratch: Register) {
    asm.load(Width::Quad, scratch, ZERO, CONTROL + control::CLOCK);
    asm.compute_immediate(Operation::Add, scratch, TICK);
    asm.store(Width::Quad, scratch, ZERO, CONTROL + control::DEADLINE);
    asm.output(Width::Double, ZERO, DOORBELL_PORT);
}
