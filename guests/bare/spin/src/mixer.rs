//! The computation: a hash that runs through memory.

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

/// Words of memory to run through: 256 KiB, so that a stretch dirties pages at random.
const WORDS: usize = 1 << 15;

/// A checksum over everything that was computed.
pub struct Mixer {
    memory: Box<[u64]>,
    state: u64,
    iterations: u64,
}

impl Mixer {
    /// Starts from a constant, so that every run computes the same.
    pub fn new() -> Self {
        Self { memory: vec![0; WORDS].into(), state: 0x9e37_79b9_7f4a_7c15, iterations: 0 }
    }

    /// Runs a number of iterations without an exit.
    #[inline(never)]
    pub fn run(&mut self, iterations: u64) {
        for _ in 0..iterations {
            // xorshift64*: every iteration depends on the one before, nothing can be left out or run ahead.
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            let word = &mut self.memory[(self.state >> 32) as usize % WORDS];
            *word = word.wrapping_add(self.state.wrapping_mul(0x2545_f491_4f6c_dd1d));
            self.state ^= *word >> 7;
            // The one state from which xorshift never moves again.
            self.state |= u64::from(self.state == 0);
        }
        self.iterations += iterations;
    }
}

impl fmt::Display for Mixer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {}", self.state, self.iterations)
    }
}
