//! What a secondary hands to the recorder when it becomes the primary.

use std::time::{Duration, Instant};

use echovisor_event::Nanos;
use echovisor_log::arbiter::Record;
use echovisor_machine::{Machine, MachineConfig};
use tokio::sync::oneshot;

use crate::Unconfirmed;

/// A guest that goes live.
pub struct Promotion<C> {
    /// At a boundary, behind everything in the log.
    pub machine: Machine<C>,
    /// What it is made of.
    pub config: MachineConfig,
    /// The record under which this node runs it.
    pub record: Record,
    /// What must be sent again.
    pub unconfirmed: Unconfirmed,
    /// The last time in the log, and when it came in.
    pub clock: (Nanos, Instant),
    /// How long it took.
    pub times: Times,
    /// Who waits to hear that this node runs the guest.
    pub askers: Vec<oneshot::Sender<Result<(), String>>>,
}

/// What a takeover is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// From the last message of the primary to the suspicion that it is dead.
    pub suspicion: Duration,
    /// To the arbiter's answer.
    pub arbiter: Duration,
    /// To the end of the log.
    pub replay: Duration,
}
