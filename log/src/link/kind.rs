//! The kinds of messages: their numbers on the wire, and how long each may be.

use echovisor_event::limits::ASK_MAX;

use super::message::Message;
use crate::{
    limits::{ADDRESS_MAX, BODY_MAX, CONFIG_MAX, NODES_MAX, PAGES_MAX, STATE_MAX, TEXT_MAX, VERSION},
    varint,
};

/// Bytes of a control message beside its texts, lists, configuration and state.
const CONTROL_EXTRA: usize = 256;

/// Declares the kinds once: number, name, longest body.
macro_rules! kinds {
    ($($name:ident = $number:literal, $max:expr;)*) => {
        /// The kind of a message, by its number on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum MessageKind { $(#[doc = concat!("[`Message::", stringify!($name), "`].")] $name = $number,)* }

        impl MessageKind {
            /// All of them.
            pub(super) const ALL: &[MessageKind] = &[$(MessageKind::$name,)*];

            /// The kind with this number.
            #[must_use]
            pub fn from_code(code: u8) -> Option<MessageKind> {
                match code { $($number => Some(MessageKind::$name),)* _ => None }
            }

            /// Longest body, bytes.
            #[must_use]
            pub fn longest(self) -> usize {
                match self { $(MessageKind::$name => $max,)* }
            }
        }

        impl Message<'_> {
            /// Which kind of message this is.
            #[must_use]
            pub fn kind(&self) -> MessageKind {
                match self { $(Message::$name { .. } => MessageKind::$name,)* }
            }
        }
    };
}

kinds! {
    Hello = 1, TEXT_MAX + CONTROL_EXTRA;
    Welcome = 2, CONTROL_EXTRA;
    Refuse = 3, TEXT_MAX + 2;
    SyncBegin = 4, CONFIG_MAX + STATE_MAX + CONTROL_EXTRA;
    SyncNodes = 5, NODES_MAX;
    SyncPages = 6, PAGES_MAX;
    Ready = 7, CONTROL_EXTRA;
    Grant = 8, varint::LONGEST;
    SegmentStart = 9, CONTROL_EXTRA;
    Batch = 10, BODY_MAX;
    Heartbeat = 11, 3 * varint::LONGEST;
    Ack = 12, 3 * varint::LONGEST + 1;
    Diverged = 13, TEXT_MAX + CONTROL_EXTRA;
    Bye = 14, TEXT_MAX;
    SyncAsk = 15, ASK_MAX * size_of::<u32>() + CONTROL_EXTRA;
    Listens = 24, ADDRESS_MAX;
    Promote = 25, 0;
    HandOver = 26, CONTROL_EXTRA;
    Keep = 27, TEXT_MAX;
}

impl MessageKind {
    /// Whether it is a part of log or state, of which much may wait for the peer.
    pub(super) fn is_bulk(self) -> bool {
        matches!(self, MessageKind::SyncNodes | MessageKind::SyncPages | MessageKind::Batch)
    }
}

/// What a secondary may say first.
pub(super) const FIRST: &[MessageKind] = &[MessageKind::Hello];

/// What a primary may answer to that.
pub(super) const ANSWER: &[MessageKind] = &[MessageKind::Welcome, MessageKind::Refuse, MessageKind::Bye];

/// What a secondary may say afterwards.
pub(super) const OF_SECONDARY: &[MessageKind] = &[
    MessageKind::SyncAsk,
    MessageKind::Ready,
    MessageKind::Ack,
    MessageKind::Diverged,
    MessageKind::Bye,
    MessageKind::Listens,
    MessageKind::Promote,
];

/// What a primary may say afterwards.
pub(super) const OF_PRIMARY: &[MessageKind] = &[
    MessageKind::SyncBegin,
    MessageKind::SyncNodes,
    MessageKind::SyncPages,
    MessageKind::Grant,
    MessageKind::SegmentStart,
    MessageKind::Batch,
    MessageKind::Heartbeat,
    MessageKind::Bye,
    MessageKind::HandOver,
    MessageKind::Keep,
];

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No message has this number.
    #[error("a message of unknown kind {kind}")]
    UnknownKind {
        /// The number.
        kind: u8,
    },
    /// Longer than a message of its kind can be.
    #[error("a {kind:?} message of {len} bytes; at most {} are possible", .kind.longest())]
    TooLong {
        /// Its kind.
        kind: MessageKind,
        /// Its length, bytes.
        len: usize,
    },
    /// The sender is no Echovisor.
    #[error("the first bytes are not those of an Echovisor link")]
    NotEchovisor,
    /// The sender speaks another version.
    #[error("the peer speaks version {theirs} of the link, we speak version {VERSION}")]
    Version {
        /// Its version.
        theirs: u16,
    },
    /// The body does not hold what its kind says.
    #[error("{kind:?} message: {field}: {problem}")]
    Malformed {
        /// Its kind.
        kind: MessageKind,
        /// The part that is wrong.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}
