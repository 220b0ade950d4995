//! When a delta is written: `--policy` and what belongs to it.

use clap::{Args, ValueEnum};
use echovisor_log::Compression;
use echovisor_recorder::Policy;
use humantime::Duration;

use crate::failure::{Exit, Failure};

/// Shortest epoch or quantum, milliseconds: less than that a guest would be given no time between two deltas.
const SHORTEST_MS: u128 = 1;

/// When this node sends states instead of events, while it runs the guest.
#[derive(Args, Clone, Debug)]
pub struct PolicyArgs {
    /// When to send state instead of events
    #[arg(long = "policy", value_enum, default_value_t = Kind::Replay, overrides_with = "kind", value_name = "POLICY")]
    pub kind: Kind,

    /// With --policy checkpoint: how often state is sent
    #[arg(long, value_name = "TIME", default_value = "25ms")]
    pub epoch: Duration,

    /// With --policy replay: how often a guest that computes without an exit is called out, and its state sent, so that it can be given
    /// events; for the first time after five times as long
    #[arg(long, value_name = "TIME", default_value = "10ms")]
    pub quantum: Duration,

    /// How much what is sent is compressed
    #[arg(long, value_enum, value_name = "HOW", default_value_t = DeltaCompression::Zstd)]
    pub delta_compression: DeltaCompression,
}

/// A policy, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Only where execution can't be replayed; the secondary executes
    Replay,
    /// Once in each epoch, as Remus and QEMU's Micro-Checkpointing; the secondary holds state
    Checkpoint,
    /// At each output, with the guest waiting, as Kemari; the secondary holds state
    Kemari,
}

/// How much is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeltaCompression {
    /// Hardly: changed pages travel whole
    None,
    /// Of a page that was sent before what differs, and that by zstd
    Zstd,
}

impl PolicyArgs {
    /// The policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        match self.kind {
            Kind::Replay => Policy::Replay { quantum: *self.quantum },
            Kind::Checkpoint => Policy::Checkpoint { epoch: *self.epoch },
            Kind::Kemari => Policy::Kemari,
        }
    }

    /// How the log is compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        match self.delta_compression {
            DeltaCompression::None => Compression::None,
            DeltaCompression::Zstd => Compression::Zstd,
        }
    }

    /// Refuses times with which no guest could work.
    ///
    /// # Errors
    /// If an epoch or a quantum is too short.
    pub fn validate(&self) -> Result<(), Failure> {
        for (name, time) in [("--epoch", self.epoch), ("--quantum", self.quantum)] {
            if time.as_millis() < SHORTEST_MS {
                let what = format!("{name} {time} leaves the guest no time to run");
                return Err(Failure::new(what, "let it be at least 1ms").with_exit(Exit::Usage));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    fn parse(line: &str) -> PolicyArgs {
        #[derive(Parser)]
        struct Node {
            #[command(flatten)]
            policy: PolicyArgs,
        }
        Node::parse_from(line.split(' ')).policy
    }

    #[test]
    fn a_policy_has_its_times() {
        assert_eq!(parse("node").policy(), Policy::default());
        let epoch = Duration::from_millis(25);
        assert_eq!(parse("node --policy checkpoint").policy(), Policy::Checkpoint { epoch });
        let quantum = Duration::from_millis(3);
        assert_eq!(parse("node --quantum 3ms").policy(), Policy::Replay { quantum });
        // The last one holds.
        assert_eq!(parse("node --policy checkpoint --policy kemari").policy(), Policy::Kemari);
        assert_eq!(parse("node --delta-compression none").compression(), Compression::None);
    }

    #[test]
    fn a_guest_is_given_time_to_run() {
        assert!(parse("node --epoch 1ms --quantum 1ms").validate().is_ok());
        for line in ["node --epoch 0s", "node --quantum 10us"] {
            assert_eq!(parse(line).validate().expect_err(line).exit(), Exit::Usage, "{line}");
        }
    }
}
