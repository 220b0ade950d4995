//! Ways to protect a guest.

use clap::ValueEnum;
use serde::Serialize;

/// What becomes of the guest's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Policy {
    /// Nothing: a primary without a peer, which logs nothing
    Unprotected,
    /// It is written to disk, as `echovisor record` does
    Recorded,
    /// A secondary replays it in lockstep
    Replay,
    /// A secondary holds the state of the last epoch: the policy of Remus and Micro-Checkpointing
    Checkpoint,
    /// A secondary holds the state before each output: the policy of Kemari
    Kemari,
}

impl Policy {
    /// What is compared unless something else is asked for.
    pub(super) const DEFAULT: [Policy; 4] =
        [Policy::Unprotected, Policy::Replay, Policy::Checkpoint, Policy::Kemari];

    /// As it stands on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Policy::Unprotected => "unprotected",
            Policy::Recorded => "recorded",
            Policy::Replay => "replay",
            Policy::Checkpoint => "checkpoint",
            Policy::Kemari => "kemari",
        }
    }

    /// Whether a secondary takes part.
    pub(super) fn has_secondary(self) -> bool {
        !matches!(self, Policy::Unprotected | Policy::Recorded)
    }
}
