//! Where in a guest's execution something takes effect.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

/// How many guest-synchronous steps have happened since boot.
///
/// A step is an exit that an instruction of the guest caused (port I/O, MMIO, HLT). Exits that the host caused, such as a
/// signal, never count, so the same guest with the same events passes through the same positions on every run.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Where every guest starts: nothing has been executed.
    pub const BOOT: Position = Position(0);

    /// The position one step later.
    #[must_use]
    pub fn next(self) -> Position {
        Position(self.0.saturating_add(1))
    }

    /// The position one step earlier; `None` at boot.
    #[must_use]
    pub fn previous(self) -> Option<Position> {
        self.0.checked_sub(1).map(Position)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something together with the position at which it takes effect.
///
/// To the recorder a stamped event is what happened, to the replayer it is what must happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped<T> {
    /// Where.
    pub at: Position,
    /// What.
    pub what: T,
}
