//! What a secondary tells of itself.

use std::sync::Arc;

use echovisor_event::{Digest, Position, Term};

use super::report::Report;

/// A secondary's state, for `status`.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How many takeovers there have been.
    pub term: Term,
    /// Where the replaying guest stands.
    pub position: Position,
    /// The log is held up to here.
    pub watermark: Position,
    /// Whether this node may take over.
    pub eligible: bool,
    /// What it is doing, in a word or two.
    pub mode: String,
    /// Why the arbiter gives no answer, while it is asked for something and gives none.
    pub arbiter_silent: Option<String>,
    /// The last checkpoint, which was equal.
    pub last_checkpoint: Option<(Position, Digest)>,
    /// Checkpoints compared.
    pub checkpoints: u64,
    /// How often the guest took another course than the log.
    pub divergences: u64,
    /// What was wrong when that was last compared and healed.
    pub last_divergence: Option<Arc<Report>>,
    /// While a state is fetched: bytes of pages that have come, and of all that lack, before compression.
    pub joining: Option<(u64, u64)>,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes on the link, both directions.
    pub link_bytes: u64,
}
