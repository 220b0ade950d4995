//! What happens to a guest.

use crate::Nanos;

/// An input that the guest could not have computed for itself. Everything nondeterministic that reaches a guest is one of
/// these, and every one of these is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The virtual clock moved to this time; never backwards.
    Clock(Nanos),
    /// UNIX time, in nanoseconds, of virtual time zero.
    Wall(u64),
    /// An Ethernet frame was received, without its frame check sequence.
    Frame(&'a [u8]),
    /// Bytes came in on the console.
    Console(&'a [u8]),
    /// Random bytes for the guest.
    Entropy(&'a [u8]),
}

/// The kind of an [`Event`]; the number is its code in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    /// [`Event::Clock`].
    Clock = 1,
    /// [`Event::Wall`].
    Wall = 2,
    /// [`Event::Frame`].
    Frame = 3,
    /// [`Event::Console`].
    Console = 4,
    /// [`Event::Entropy`].
    Entropy = 5,
}

impl Kind {
    /// Every kind, in the order of their codes.
    pub const ALL: [Kind; 5] = [Kind::Clock, Kind::Wall, Kind::Frame, Kind::Console, Kind::Entropy];

    /// Its name in messages and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Clock => "clock",
            Kind::Wall => "wall",
            Kind::Frame => "frame",
            Kind::Console => "console",
            Kind::Entropy => "entropy",
        }
    }

    /// The kind with this code in the log.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

impl Event<'_> {
    /// Which kind of event this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Event::Clock(_) => Kind::Clock,
            Event::Wall(_) => Kind::Wall,
            Event::Frame(_) => Kind::Frame,
            Event::Console(_) => Kind::Console,
            Event::Entropy(_) => Kind::Entropy,
        }
    }
}
