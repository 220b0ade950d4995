//! The control socket of a node: one JSON object per line, a request each way and an answer back.
//!
//! ```text
//! {"command":"status"}            ->  {"ok":{"role":"primary","term":3,...}}
//! {"command":"snapshot"}          ->  {"ok":{"position":123}}
//! {"command":"stop"}              ->  {"ok":null}
//! {"command":"promote"}           ->  {"ok":null}
//! something else                  ->  {"error":{"message":"...","hint":"..."}}
//! ```
//!
//! The socket belongs to its owner alone: who can open it may do with the node what they like.

mod client;
mod server;

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

pub use client::{ask, status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use server::{Server, serve};

use crate::failure::Failure;

/// Longest line in either direction, bytes: a status has well under 4 KiB, and a reader must not be made to hold more.
const LINE_MAX: usize = 64 << 10;

/// How long a node may take to answer. A `stop` waits for its acknowledgement by the secondary, which may have to be
/// suspected and dropped first.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a node can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// How are you? Answered by a [`Status`].
    Status,
    /// Take a snapshot. Answered by where it was taken, when it is on disk.
    Snapshot,
    /// Power the guest off and end.
    Stop,
    /// Swap the roles of the guest's two nodes. Answered when that is done.
    Promote,
    /// Make a bit of a secondary's machine go bad behind its next checkpoint. For tests of what finds it; no command sends it.
    Spoil {
        /// Which part of the machine.
        part: Part,
        /// Where: an address of RAM, or a register's number; a device has but one.
        at: u64,
        /// Which bit there.
        bit: u8,
    },
}

/// A part of a machine that can go bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// RAM.
    Memory,
    /// The general-purpose registers.
    Register,
    /// The console.
    Device,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// It is done, and this is the result.
    Ok(Value),
    /// It is not done.
    Error(Refusal),
}

/// Why a node does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why.
    pub message: String,
    /// What to do instead.
    pub hint: String,
}

/// Which part a node plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It runs the guest against the real world.
    Primary,
    /// It follows a primary.
    Secondary,
}

/// How a node is. Scripts rely on the names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Which part it plays.
    pub role: Role,
    /// How many takeovers there have been.
    pub term: u64,
    /// Where its guest stands.
    pub position: u64,
    /// Up to where its log is complete.
    pub watermark: u64,
    /// Up to where the log is held by all whose acknowledgement is required.
    pub acknowledged: u64,
    /// How far the secondary is behind the primary.
    pub lag_ms: f64,
    /// Whether the guest would survive the loss of the primary now.
    pub protected: bool,
    /// The last position at which both sides had the same state, or at which a recording has a digest.
    pub last_checkpoint: Option<u64>,
    /// How many differences between the two sides have been found.
    pub divergences: u64,
    /// Bytes of frames that the guest received.
    pub guest_rx_bytes: u64,
    /// Bytes of frames that the guest sent.
    pub guest_tx_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes that crossed the link, both directions, as counted on the socket.
    pub link_bytes: u64,
    /// After a takeover, how long it took from the last sign of life to the first release of an effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover_ms: Option<f64>,
    /// The snapshots of a node that keeps some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Snapshots>,
    /// Whatever else the node has to tell.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

impl Status {
    /// The status of a node to which nothing has happened yet.
    #[must_use]
    pub fn new(role: Role) -> Status {
        Status {
            role,
            term: 0,
            position: 0,
            watermark: 0,
            acknowledged: 0,
            lag_ms: 0.0,
            protected: false,
            last_checkpoint: None,
            divergences: 0,
            guest_rx_bytes: 0,
            guest_tx_bytes: 0,
            log_bytes: 0,
            link_bytes: 0,
            takeover_ms: None,
            snapshots: None,
            more: BTreeMap::new(),
        }
    }

    /// One of the counts of `more`; none is zero.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.more.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// A node's snapshots. Scripts rely on the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// How many there are.
    pub count: usize,
    /// Bytes that they take on disk.
    pub bytes: u64,
    /// Where the last one was taken.
    pub position: Option<u64>,
    /// How long ago that was, seconds.
    pub age_s: Option<u64>,
    /// The segment of the log that begins there.
    pub segment: Option<u64>,
    /// Why no more are taken, once that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Why no space is freed, while that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfreed: Option<String>,
}

/// Why a node could not be asked, or could not offer to be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such socket.
    #[error("there is no control socket at {0}")]
    Missing(PathBuf),
    /// The socket was left behind by a node that is gone.
    #[error("no node answers at {0}: the one that made this socket has ended")]
    Stale(PathBuf),
    /// The socket is another user's.
    #[error("the control socket {0} belongs to another user")]
    Permission(PathBuf),
    /// Another node answers at this path.
    #[error("another node answers at the control socket {0}")]
    Occupied(PathBuf),
    /// Something that is not a socket is in the way.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The node took too long.
    #[error("the node at {0} did not answer within {time} s", time = PATIENCE.as_secs())]
    Late(PathBuf),
    /// The node hung up, before its answer or in the middle of it.
    #[error("the node at {0} ended before it had answered; what it was asked for may be done or not")]
    HungUp(PathBuf),
    /// The answer is none.
    #[error("what answers at {0} is not a node of this version")]
    Foreign(PathBuf),
    /// The node refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Anything else that can happen to a socket.
    #[error("the control socket {path} cannot be used")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Failure {
        let hint = match &error {
            ControlError::Missing(_) => "give the path that the node was given with its own --control",
            ControlError::Stale(_) => "start the node again, or ask its peer, which may have taken over",
            ControlError::Permission(_) => "ask as the user who runs the node",
            ControlError::Occupied(_) => "give each node a socket of its own",
            ControlError::NotASocket(_) => "give another path; this file is left as it is",
            ControlError::Late(_) => "see what the node says on its stderr; -v makes it say more",
            ControlError::HungUp(_) => {
                "see what the node said last on its stderr, and ask its peer with `echovisor status` who runs the guest now"
            }
            ControlError::Foreign(_) => {
                "give the path of a control socket, and use one version on both sides"
            }
            ControlError::Refused(refusal) => &refusal.hint,
            ControlError::Io { .. } => {
                "see whether the folder exists; the path of a socket has at most 107 bytes"
            }
        };
        let failure = Failure::new(error.to_string(), hint);
        match error {
            ControlError::Io { source, .. } => failure.because(source),
            _ => failure,
        }
    }
}
