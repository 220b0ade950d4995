//! What a primary tells of itself.

use echovisor_event::{Digest, Position, Term};

use super::door::Refused;
use crate::KeeperStatus;

/// A primary's state, for `status`.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How many takeovers there have been.
    pub term: Term,
    /// Where the guest stands.
    pub position: Position,
    /// The log that was sent is complete up to here.
    pub watermark: Position,
    /// The log is held up to here by all whose acknowledgement is required.
    pub acknowledged: Position,
    /// How far the secondary's execution is behind, milliseconds.
    pub lag_ms: u64,
    /// Whether the loss of this host would cost nothing.
    pub protected: bool,
    /// How the guest is protected, in a word or two.
    pub mode: String,
    /// Why the arbiter gives no answer, while it is asked for something and gives none.
    pub arbiter_silent: Option<String>,
    /// The last checkpoint in the log.
    pub last_checkpoint: Option<(Position, Digest)>,
    /// How often a secondary's state was found to be another one.
    pub divergences: u64,
    /// While a state is given to a secondary: bytes of pages that were sent, and of all that it lacks, before compression.
    pub joining: Option<(u64, u64)>,
    /// Frame bytes that the guest has received.
    pub guest_rx_bytes: u64,
    /// Frame bytes that have left the gate.
    pub guest_tx_bytes: u64,
    /// Effects that wait at the gate.
    pub held: usize,
    /// Bytes of the log, as sent and stored.
    pub log_bytes: u64,
    /// Bytes on the link, both directions.
    pub link_bytes: u64,
    /// Batches sent.
    pub batches: u64,
    /// Deltas written, since this node runs the guest.
    pub deltas: u64,
    /// Pages in them.
    pub delta_pages: u64,
    /// The guest's history was to be kept, but the disk failed.
    pub history_lost: bool,
    /// Connections that did not become a secondary's.
    pub refused: Refused,
    /// The snapshots that it keeps, if it keeps any.
    pub snapshots: Option<KeeperStatus>,
}
