//! When checkpoints are due.

use std::time::Duration;

use echovisor_event::Position;

/// How often the state's digest goes on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// About every so long a time in which the guest runs. Most of its memory is read while it does.
    Busy(Duration),
    /// Every so many positions, exactly. The guest stands still while its memory is read.
    Positions(u64),
}

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    Never,
    /// At this position or behind it.
    At(Position),
    /// When the guest has run for so long, nanoseconds.
    Busy(u64),
}

impl Due {
    /// When the next checkpoint is due behind one that was made here.
    pub(crate) fn after(cadence: Option<Cadence>, position: Position, busy: u64) -> Due {
        match cadence {
            None => Due::Never,
            Some(Cadence::Positions(positions)) => Due::At(Position(position.0.saturating_add(positions))),
            Some(Cadence::Busy(time)) => Due::Busy(busy.saturating_add(time.as_nanos() as u64)),
        }
    }
}
