//! What the log holds.

use echovisor_event::{Digest, Event, Position};

/// One entry of the log; always used as `Stamped<Record>`.
///
/// A delta (changed pages and registers, where replay is impossible) will be a further variant.
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
    /// The operator stopped the guest: the log ends here on purpose. The last record of its segment.
    Stop,
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
}
