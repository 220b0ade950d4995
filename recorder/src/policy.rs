//! What the log is made of: events, or states.

use std::time::Duration;

/// How long a guest may make no exit, by default.
pub const QUANTUM: Duration = Duration::from_millis(10);

/// How long an epoch is, by default: what Remus takes.
pub const EPOCH: Duration = Duration::from_millis(25);

/// When a delta is written. A secondary that is given deltas alone does not execute: it holds the last one's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Events are logged, and a delta is written only where the guest makes no exit for too long: an event needs a position.
    Replay {
        /// How long it may make none, once it has made none for five times as long.
        quantum: Duration,
    },
    /// A delta at the end of each epoch in which the guest has done anything, and nothing else. The guest runs on while it is sent,
    /// and its outputs wait for the acknowledgement, as in Remus and QEMU's Micro-Checkpointing.
    Checkpoint {
        /// How long an epoch is.
        epoch: Duration,
    },
    /// A delta behind each output, and nothing else. The guest stands still until it is acknowledged, as in Kemari.
    Kemari,
}

impl Policy {
    /// Whether a secondary is given events and executes.
    #[must_use]
    pub fn logs_events(self) -> bool {
        matches!(self, Policy::Replay { .. })
    }

    /// How long the guest may run without an exit.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Policy::Replay { quantum } => quantum,
            Policy::Checkpoint { epoch } => epoch,
            Policy::Kemari => QUANTUM,
        }
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::Replay { quantum: QUANTUM }
    }
}
