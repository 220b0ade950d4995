//! Ways to protect a guest.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// How often state is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// By `checkpoint`.
    pub(super) epoch: Duration,
    /// By `replay`, of a guest that makes no exit.
    pub(super) quantum: Duration,
}

/// What becomes of the guest's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Policy {
    /// Nothing: a primary without a peer, which logs nothing
    Unprotected,
    /// It is written to disk, as `echovisor record` does
    Recorded,
    /// A secondary replays it in lockstep
    Replay,
    /// A secondary holds the state of the last epoch: the policy of Remus and Micro-Checkpointing. Changed pages travel whole, as there
    Checkpoint,
    /// A secondary holds the state before each output: the policy of Kemari. Changed pages travel whole, as there
    Kemari,
    /// As `checkpoint`, but only what differs in a page travels, and that compressed
    CheckpointZstd,
    /// As `kemari`, but only what differs in a page travels, and that compressed
    KemariZstd,
}

impl Policy {
    /// What is compared unless something else is asked for.
    pub(super) const DEFAULT: [Policy; 5] =
        [Policy::Unprotected, Policy::Recorded, Policy::Replay, Policy::Checkpoint, Policy::Kemari];

    /// As it stands on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Policy::Unprotected => "unprotected",
            Policy::Recorded => "recorded",
            Policy::Replay => "replay",
            Policy::Checkpoint => "checkpoint",
            Policy::Kemari => "kemari",
            Policy::CheckpointZstd => "checkpoint-zstd",
            Policy::KemariZstd => "kemari-zstd",
        }
    }

    /// The options of `echovisor primary`, where a secondary takes part.
    pub(super) fn options(self, pace: &Pace) -> Vec<String> {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let epoch = ["--epoch".to_owned(), time(pace.epoch)];
        let policy = |name: &str| ["--policy", name].map(str::to_owned);
        let compression = |name: &str| ["--delta-compression", name].map(str::to_owned);
        match self {
            Policy::Unprotected | Policy::Recorded => Vec::new(),
            Policy::Replay => [policy("replay"), ["--quantum".to_owned(), time(pace.quantum)]].concat(),
            Policy::Checkpoint => [policy("checkpoint"), epoch, compression("none")].concat(),
            Policy::CheckpointZstd => [policy("checkpoint"), epoch, compression("zstd")].concat(),
            Policy::Kemari => [policy("kemari"), compression("none")].concat(),
            Policy::KemariZstd => [policy("kemari"), compression("zstd")].concat(),
        }
    }

    /// Whether a secondary takes part.
    pub(super) fn has_secondary(self) -> bool {
        !matches!(self, Policy::Unprotected | Policy::Recorded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_told_to_the_primary() {
        let pace = Pace { epoch: Duration::from_millis(25), quantum: Duration::from_millis(10) };
        let options = |policy: Policy| policy.options(&pace).join(" ");
        assert_eq!(options(Policy::Recorded), "");
        assert_eq!(options(Policy::Replay), "--policy replay --quantum 10ms");
        assert_eq!(options(Policy::Checkpoint), "--policy checkpoint --epoch 25ms --delta-compression none");
        assert_eq!(options(Policy::KemariZstd), "--policy kemari --delta-compression zstd");
        for policy in Policy::value_variants() {
            let shown = policy.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(shown.as_deref(), Some(policy.name()));
            assert_eq!(serde_json::to_value(policy).expect("a name"), policy.name());
        }
    }
}
