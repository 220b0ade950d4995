//! Counts milliseconds of virtual time, prints now and then, and echoes what is typed.
//!
//! | argument | meaning | default |
//! |---|---|---|
//! | `every=N` | print after every N ticks | 100 |
//! | `ticks=N` | power off with code 0 after N ticks | never |
#![no_std]
#![no_main]

use rt::{Ticker, arguments, console, power, println};

/// One millisecond.
const PERIOD: u64 = 1_000_000;

rt::entry!(main);

fn main() -> ! {
    let every = arguments::parse("every").unwrap_or(100).max(1);
    let last = arguments::parse("ticks").unwrap_or(u64::MAX);
    let mut ticker = Ticker::new(PERIOD);
    let mut count = 0u64;
    loop {
        for _ in 0..ticker.wait() {
            count += 1;
            if count.is_multiple_of(every) {
                println!("count {count}");
            }
            if count >= last {
                power::off(0);
            }
        }
        while let Some(byte) = console::read() {
            console::write(byte);
        }
    }
}
