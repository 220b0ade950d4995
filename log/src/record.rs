//! What the log holds.

use echovisor_event::{Digest, Event, Position};

/// One entry of the log; always used as `Stamped<Record>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An input of the guest.
    Event(Event<'a>),
    /// Both sides compute the digest of the guest's state at this boundary.
    Checkpoint,
    /// What it was at a checkpoint, so that both sides compare. It is known later than that, while the guest runs on; if it is
    /// never known, there is none.
    Digest {
        /// The checkpoint, at or before this record.
        of: Position,
        /// The state's digest there.
        digest: Digest,
    },
    /// The contents of a page, as the [`Record::Delta`] behind it at the same position puts them there. One of zeros has none.
    Page {
        /// The page's number.
        page: u64,
        /// What it holds: a page, or nothing.
        contents: &'a [u8],
    },
    /// Ends a delta: the machine goes from this position to that of `state`, not by execution but by taking over the pages before
    /// it and then this state.
    Delta {
        /// Why there is one.
        cause: Cause,
        /// All of the machine's state besides RAM, as bytes.
        state: &'a [u8],
    },
    /// The operator stopped the guest: the log ends here on purpose. The last record of its segment.
    Stop,
}

/// Why a delta was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cause {
    /// The guest made no exit for too long.
    Quantum = 0,
    /// An epoch was over.
    Epoch = 1,
    /// The guest had made an output.
    Output = 2,
    /// The log had to reach the guest's position: for a checkpoint, a capture, the end.
    Checkpoint = 3,
}

impl Cause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Cause; 4] = [Cause::Quantum, Cause::Epoch, Cause::Output, Cause::Checkpoint];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cause::Quantum => "quantum",
            Cause::Epoch => "epoch",
            Cause::Output => "output",
            Cause::Checkpoint => "checkpoint",
        }
    }

    pub(crate) fn from_number(number: u64) -> Option<Cause> {
        Cause::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// What a record is, by its number in the log. Events carry the code of their
/// [`Kind`](echovisor_event::Kind); the log's own records begin at 32.
pub(crate) mod code {
    use echovisor_event::Kind;

    pub(crate) const CLOCK: u8 = Kind::Clock as u8;
    pub(crate) const WALL: u8 = Kind::Wall as u8;
    pub(crate) const FRAME: u8 = Kind::Frame as u8;
    pub(crate) const CONSOLE: u8 = Kind::Console as u8;
    pub(crate) const ENTROPY: u8 = Kind::Entropy as u8;
    pub(crate) const CHECKPOINT: u8 = 32;
    pub(crate) const STOP: u8 = 33;
    pub(crate) const DIGEST: u8 = 34;
    pub(crate) const PAGE: u8 = 35;
    pub(crate) const DELTA: u8 = 36;
}
