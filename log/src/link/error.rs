//! What can go wrong on a link.

use std::{io, time::Duration};

use echovisor_event::{Term, VmId};
use tokio_rustls::rustls;

use super::{
    address::Address,
    keys::PublicKey,
    kind::{MessageKind, WireError},
    message::RefuseCode,
    tls,
};

/// A link that could not be made, or did not hold.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// An address has neither of the two forms.
    #[error("`{text}` is not an address: {problem}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Plain text would leave this host.
    #[error("`{address}` is not on this host, and without keys the link is not encrypted")]
    Plaintext {
        /// Where it would go.
        address: Address,
    },
    /// The address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: Address,
        /// The system's word for it.
        source: io::Error,
    },
    /// Nobody could be reached.
    #[error("cannot reach {address}: {source}")]
    Dial {
        /// The address.
        address: Address,
        /// The system's word for it.
        source: io::Error,
    },
    /// A connection could not be taken.
    #[error("cannot accept a connection: {0}")]
    Accept(#[source] io::Error),
    /// Reading or writing failed.
    #[error("the link broke while {doing}: {source}")]
    Io {
        /// What was under way.
        doing: &'static str,
        /// The system's word for it.
        source: io::Error,
    },
    /// The peer closed the link between two messages.
    #[error("the peer closed the link")]
    Closed,
    /// The peer closed the link within a message.
    #[error("the peer closed the link in the middle of a message, after {bytes} bytes of it")]
    CutOff {
        /// Bytes of the message that came.
        bytes: usize,
    },
    /// The peer did not get on.
    #[error("the peer did not complete the handshake within {after:?}")]
    Timeout {
        /// How long it was given.
        after: Duration,
    },
    /// What came is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The peer has another key than those that this node was told.
    #[error("the peer is a stranger, with the key {key}")]
    UnknownKey {
        /// Its key.
        key: PublicKey,
    },
    /// The peer was not told this node's key, or says so.
    #[error("the peer does not take this node's key")]
    KeyRefused,
    /// The peer does not speak TLS as it should.
    #[error("no encrypted link: {0}")]
    Tls(#[source] rustls::Error),
    /// A message came that does not belong here.
    #[error("a {found:?} message came where {expected:?} belongs")]
    Unexpected {
        /// What belongs here.
        expected: &'static [MessageKind],
        /// What came.
        found: MessageKind,
    },
    /// The peer does not want this link.
    #[error("the peer refused: {text}")]
    Refused {
        /// The reason, for programs.
        code: RefuseCode,
        /// The reason, for people.
        text: String,
    },
    /// The peer ended the link on purpose.
    #[error("the peer said goodbye: {0}")]
    Bye(String),
    /// The two sides mean different virtual machines.
    #[error("the virtual machine here is {here}, the peer's is {there}")]
    WrongVm {
        /// Ours.
        here: VmId,
        /// The peer's.
        there: VmId,
    },
    /// The peer's host or machine differs.
    #[error("the two hosts would not execute the guest alike: {difference}")]
    Fingerprint {
        /// The lines that differ, as far as they are known.
        difference: String,
    },
    /// One side is behind a takeover.
    #[error("the primary is in term {primary}, but the secondary has seen term {secondary}")]
    Superseded {
        /// The primary's term.
        primary: Term,
        /// The newest term that the secondary knows of.
        secondary: Term,
    },
}

impl LinkError {
    /// What the system says, or what encryption says through it.
    pub(super) fn io(doing: &'static str, source: io::Error) -> LinkError {
        match source.get_ref().and_then(|error| error.downcast_ref()) {
            Some(complaint) => tls::complaint(complaint),
            None => LinkError::Io { doing, source },
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        Some(match self {
            LinkError::Address { .. } => "write HOST:PORT, [IPV6]:PORT or unix:PATH",
            LinkError::Plaintext { .. } => {
                "make a key pair on each host (echovisor keygen), and give both nodes --key and --peer"
            }
            LinkError::Listen { address, source } => match source.kind() {
                io::ErrorKind::AddrInUse => match address {
                    Address::Unix(_) => {
                        "another process listens on this path; stop it or choose another path"
                    }
                    Address::Tcp { .. } => "another process uses this port; stop it or choose another port",
                },
                io::ErrorKind::AddrNotAvailable => {
                    "no interface of this host has this address; see `ip address`"
                }
                io::ErrorKind::PermissionDenied => {
                    "choose a port above 1023, or a path in a directory that you own"
                }
                io::ErrorKind::NotFound => "the directory of the socket's path must exist",
                _ => return None,
            },
            LinkError::Dial { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused => "nobody listens there: is the primary up, with --listen?",
                io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable => {
                    "check the address, the route and the firewall between the hosts"
                }
                io::ErrorKind::NotFound => "no such socket: is the primary up, with --listen unix:PATH?",
                io::ErrorKind::PermissionDenied => "the socket belongs to another user",
                // What name resolution fails with has no kind of its own.
                _ => "check the host's name and that it resolves",
            },
            LinkError::Wire(WireError::Version { .. }) => "run the same release of Echovisor on both hosts",
            LinkError::Wire(
                WireError::NotEchovisor | WireError::UnknownKind { .. } | WireError::TooLong { .. },
            )
            | LinkError::Tls(_) => {
                "is it an Echovisor of the same release that is at the other end, and has it a --key if this one has?"
            }
            LinkError::UnknownKey { .. } => "if this is the right peer, give its public key by --peer",
            LinkError::KeyRefused => "give the peer this node's public key by its --peer",
            LinkError::Timeout { .. } => "the peer hangs, or it is not an Echovisor",
            LinkError::Refused { code: RefuseCode::Busy, .. } => {
                "a primary has one secondary; stop the other one first"
            }
            LinkError::Fingerprint { .. } => {
                "use two hosts with the same CPU, kernel and release of Echovisor"
            }
            LinkError::Superseded { .. } => "a takeover has happened: join the new primary as a secondary",
            _ => return None,
        })
    }
}
