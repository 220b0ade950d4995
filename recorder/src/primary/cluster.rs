//! What a primary has around it besides its guest: a place to be joined at, and an arbiter.

use std::sync::Arc;

use echovisor_log::{
    arbiter::{Arbiter, Record},
    link::Listener,
};

use super::protocol::Timing;

/// Where secondaries join, and who decides which node may run the guest.
pub struct Cluster {
    /// Where secondaries join; `None` if the guest shall stay unprotected.
    pub listener: Option<Arc<Listener>>,
    /// Who decides.
    pub arbiter: Arc<dyn Arbiter>,
    /// The record under which this node runs the guest.
    pub record: Record,
    /// How long things take.
    pub timing: Timing,
}
