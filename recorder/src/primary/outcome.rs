//! How a node's work ends.

use echovisor_log::{
    EncodeError,
    arbiter::Record,
    link::Address,
    store::{Store, StoreError},
};
use echovisor_machine::Memory;
use echovisor_snapshot::store::PageStore;

use crate::{Ended, RecordError};

/// How a node's work ended.
#[derive(Debug)]
pub enum Outcome {
    /// The guest ended, everywhere.
    Ended(Ended),
    /// Another primary runs the guest, and this node has given it up.
    Fenced {
        /// What the arbiter's record says.
        record: Record,
        /// Where the last secondary said that it will listen when it is the primary.
        successor: Option<Address>,
        /// Whether this node has handed it over, so that the guest stood still until then.
        handed_over: bool,
        /// The guest's memory as it was here last, in which nothing runs any more. Most of it is in the successor's, too.
        memory: Option<Memory>,
        /// Where its history was kept, to go on with later.
        history: Option<Box<(Store, PageStore)>>,
    },
}

/// Why a node could not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The guest's thread.
    #[error(transparent)]
    Guest(#[from] RecordError),
    /// The guest's thread ended without a word.
    #[error("the guest's thread died")]
    GuestDied,
    /// Another primary runs the guest, and this node cannot get rid of it.
    #[error("another node runs the guest now, and the guest's thread here does not end")]
    GuestStays,
    /// The log.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The recording.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What ends the loop.
pub(super) enum End {
    /// The guest has ended, and that is on record.
    Guest(Ended),
    /// Another primary runs it: what [`Outcome::Fenced`] tells.
    Fenced { record: Record, successor: Option<Address>, handed_over: bool },
}

/// Why the loop cannot go on.
pub(super) enum Broken {
    Node(NodeError),
    /// The archive's thread has ended, and will say why.
    Archive,
}

impl From<NodeError> for Broken {
    fn from(error: NodeError) -> Broken {
        Broken::Node(error)
    }
}
