//! Computes for long stretches without an exit, as no server does, and answers in between.
//!
//! On TCP port 7 each line is answered with the checksum and the number of iterations so far. Works without a network too.
//!
//! | argument | meaning | default |
//! |---|---|---|
//! | `spin=N` | iterations without an exit | 6 million, about 50 ms |
//! | `every=N` | print after every N stretches | 20 |
//! | `ip=`, `gw=` | as for `kv` | 10.0.0.2/24 |
#![no_std]
#![no_main]

extern crate alloc;

mod lines;
mod mixer;

use lines::Lines;
use mixer::Mixer;
use rt::{arguments, control, println};

rt::entry!(main);

fn main() -> ! {
    let spin = arguments::parse("spin").unwrap_or(6_000_000);
    let every = arguments::parse("every").unwrap_or(20).max(1);
    let mut mixer = Mixer::new();
    let mut lines = Lines::new();
    for stretch in 1u64.. {
        mixer.run(spin);
        if stretch.is_multiple_of(every) {
            println!("spin {mixer}");
        }
        match &mut lines {
            Some(lines) => lines.serve(&mixer),
            // An exit, but no sleep.
            None => control::wait(Some(0)),
        }
    }
    unreachable!("the stretches do not end")
}
