//! Takes an exception, to show what the machine reports of it.
//!
//! It crashes when a `c` comes in on the console, or after a number of ticks of one millisecond.
//!
//! | argument | meaning | default |
//! |---|---|---|
//! | `after=N` | crash after N ticks | never |
//! | `kind=page`, `ud`, `div` | page fault, invalid opcode, division by zero | `page` |
//! | `at=0xADDRESS` | where the page fault's store goes | 0x8 |
#![no_std]
#![no_main]

use core::arch::asm;
use rt::{Ticker, arguments, console, power, println};

/// One millisecond.
const PERIOD: u64 = 1_000_000;
/// Inside the page that the machine never maps.
const UNMAPPED: usize = 0x8;

rt::entry!(main);

fn main() -> ! {
    let after = arguments::parse("after").unwrap_or(u64::MAX);
    let crash: fn() = match arguments::get("kind").unwrap_or("page") {
        "page" => store,
        "ud" => invalid_opcode,
        "div" => divide,
        other => panic!("argument kind={other} is not valid"),
    };
    println!("crash: waiting for a c");
    let mut ticker = Ticker::new(PERIOD);
    let mut count = 0;
    loop {
        count += ticker.wait();
        if count >= after || console::read() == Some(b'c') {
            crash();
            println!("crash: survived");
            power::off(1);
        }
    }
}

/// Stores to an address that is not mapped.
#[inline(never)]
fn store() {
    let address = match arguments::get("at").map(|at| (at, at.strip_prefix("0x").unwrap_or(at))) {
        None => UNMAPPED,
        Some((at, digits)) => usize::from_str_radix(digits, 16)
            .unwrap_or_else(|_| panic!("argument at={at} is not a hexadecimal address")),
    };
    // SAFETY: none. The fault is the purpose, and where the address is mapped, the guest gets what it asked for.
    unsafe { asm!("mov byte ptr [{}], 0", in(reg) address, options(nostack, preserves_flags)) }
}

/// Executes an instruction that is invalid by definition.
#[inline(never)]
fn invalid_opcode() {
    // SAFETY: the exception ends the guest; nothing runs after it.
    unsafe { asm!("ud2", options(nomem, nostack)) }
}

/// Divides by zero without the check that the compiler would put in front.
#[inline(never)]
fn divide() {
    // SAFETY: the exception ends the guest; nothing runs after it.
    unsafe {
        asm!("div {zero:e}", zero = in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _, options(nomem, nostack));
    }
}
