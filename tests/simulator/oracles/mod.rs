//! What must hold in every run, each rule in a file of its own. They watch from outside, and know nothing of the protocol's
//! own bookkeeping.

mod fencing;
mod history;
mod lockstep;
mod progress;
mod protection;

use std::fmt;

use echovisor_machine::cpu::scripted::programs::LEDGER;

pub(crate) use self::{
    fencing::Fencing, history::History, lockstep::Lockstep, progress::Progress, protection::Protection,
};

/// A rule that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) oracle: &'static str,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.what)
    }
}

/// What an oracle says.
pub(crate) type Verdict = Result<(), Violation>;

/// An answer of the ledger guest: which frame it answers, how many there have been, and their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) request: u64,
    pub(crate) number: u64,
    pub(crate) checksum: u64,
}

impl Answer {
    /// Reads a frame of the guest.
    pub(crate) fn read(frame: &[u8]) -> Answer {
        let word = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().expect("8 bytes"));
        Answer { request: word(14), number: word(LEDGER), checksum: word(LEDGER + 8) }
    }
}

/// All oracles of a run.
#[derive(Default)]
pub(crate) struct Oracles {
    pub(crate) fencing: Fencing,
    pub(crate) history: History,
    pub(crate) lockstep: Lockstep,
    pub(crate) progress: Progress,
    pub(crate) protection: Protection,
}
