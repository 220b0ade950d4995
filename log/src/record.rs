//! What the log holds.

use echovisor_event::{Digest, Event};

/// One entry of the log; always used as `Stamped<Record>`.
///
/// A delta (changed pages and registers, where replay is impossible) will be a further variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An input of the guest.
    Event(Event<'a>),
    /// The digest of the guest's state at this boundary: both sides compute it and compare.
    Checkpoint(Digest),
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
}
