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
    #[arg(long = "policy", value_enum, default_value_t = Kind::Replay, overrides_with = "kind")]
    pub kind: Kind,

    /// With --policy checkpoint: how often state is sent
    #[arg(long, value_name = "TIME", default_value = "25ms")]
    pub epoch: Duration,

    /// With --policy replay: how long the guest may run without an exit before its state is sent, so that it can be given events
    #[arg(long, value_name = "TIME", default_value = "10ms")]
    pub quantum: Duration,

    /// How much what is sent is compressed
    #[arg(long, value_enum, default_value_t = DeltaCompression::Zstd)]
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
