//! What primary and secondary say to each other. Who says what when is decided by the recorder and the replayer.

use echovisor_event::{Digest, NodeId, Position, Term, VmId};
use rkyv::{Archive, Deserialize, Serialize};

use crate::{SegmentStart, limits::VERSION};

/// One message. Large ones borrow their bytes: from the sender's batch, or from the receiver's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Secondary: the first message on a link.
    Hello(Hello),
    /// Primary: the answer to a hello.
    Welcome(Welcome),
    /// Either: the link is of no use, and why. The last message.
    Refuse(Refuse),
    /// Primary: a state is retained here, for the secondary to make its own.
    SyncBegin(SyncBegin),
    /// Secondary: what it lacks of that state.
    SyncAsk(SyncAsk),
    /// Primary: the digests of the children of the nodes that were asked for, in that order.
    SyncNodes(&'a [u8]),
    /// Primary: the pages that were asked for, in that order, compressed.
    SyncPages(&'a [u8]),
    /// Secondary: the state is loaded, and has this digest.
    Ready(Ready),
    /// Primary: from this position on the secondary may take over.
    Grant(Position),
    /// Primary: a segment begins; the batches that follow belong to it.
    SegmentStart(SegmentStart),
    /// Primary: the body of the next batch, as [`Encoder`](crate::Encoder) made it.
    Batch(&'a [u8]),
    /// Primary: it lives.
    Heartbeat(Heartbeat),
    /// Secondary: what it holds and how far it is.
    Ack(Ack),
    /// Secondary: its state is not the primary's.
    Diverged(Diverged),
    /// Either: the link is closed on purpose, and why. The last message.
    Bye(String),
    /// Secondary: where it will listen when it runs the guest, as text.
    Listens(String),
    /// Secondary: it is to become the primary, as its operator wants.
    Promote,
    /// Primary: the log ends here on purpose, for this secondary to go on.
    HandOver(HandOver),
    /// Primary: it keeps the guest that it was asked for, and why.
    Keep(String),
}

/// What stands for host and machine: two nodes with equal digests execute a guest alike.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// For people: what went into the digest, one fact per line.
    pub text: String,
    /// For comparison.
    pub digest: Digest,
}

/// Who joins, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the link's protocol that the sender speaks.
    pub version: u16,
    /// Who it is.
    pub node: NodeId,
    /// Its host and machine.
    pub fingerprint: Fingerprint,
    /// The virtual machine that it wants; `None` takes what there is.
    pub vm: Option<VmId>,
    /// The newest term that it knows of.
    pub term: Term,
    /// What it holds of the log, if the link was lost for a moment.
    pub resume: Option<Resume>,
    /// How long it trusts a silent primary to be alive, milliseconds. The primary's lease on its effects must be shorter.
    pub suspicion_ms: u64,
}

impl Hello {
    /// A hello in this version of the protocol, for someone who holds nothing yet.
    #[must_use]
    pub fn new(node: NodeId, fingerprint: Fingerprint) -> Hello {
        Hello { version: VERSION, node, fingerprint, vm: None, term: Term(0), resume: None, suspicion_ms: 0 }
    }
}

/// Where to go on after the link was lost: the first batch that the secondary does not hold.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Its segment.
    pub segment: u64,
    /// Its number.
    pub sequence: u64,
}

/// Who protects itself with this secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Version of the link's protocol that the sender speaks.
    pub version: u16,
    /// The virtual machine.
    pub vm: VmId,
    /// Who runs it.
    pub node: NodeId,
    /// In which term.
    pub term: Term,
    /// The primary's host and machine.
    pub fingerprint: Digest,
    /// Whether the log goes on where the hello asked for; else a state follows.
    pub resumed: bool,
}

/// Why a link is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// For programs.
    pub code: RefuseCode,
    /// For people.
    pub text: String,
}

/// The reasons for a [`Refuse`] that a program may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RefuseCode {
    /// A reason that this version does not know, or that has no code.
    Other = 0,
    /// The versions of the protocol differ.
    Version = 1,
    /// Another virtual machine was asked for.
    WrongVm = 2,
    /// Host or machine would execute the guest differently.
    Fingerprint = 3,
    /// One side knows of a newer term than the primary.
    Superseded = 4,
    /// There is a secondary already.
    Busy = 5,
    /// What was said does not belong here.
    Protocol = 6,
}

impl RefuseCode {
    /// The reason with this number; what is not known is [`RefuseCode::Other`].
    #[must_use]
    pub fn from_code(code: u16) -> RefuseCode {
        use RefuseCode::{Busy, Fingerprint, Other, Protocol, Superseded, Version, WrongVm};
        let known = [Version, WrongVm, Fingerprint, Superseded, Busy, Protocol];
        known.into_iter().find(|known| *known as u16 == code).unwrap_or(Other)
    }
}

/// Announces a state. The log goes on behind it once the secondary is ready.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SyncBegin {
    /// Where the state was taken.
    pub position: Position,
    /// Size of RAM, bytes.
    pub memory: u64,
    /// The root of the page tree.
    pub root: Digest,
    /// The digest of the whole state.
    pub digest: Digest,
    /// The machine's configuration, for the machine to read; at most [`CONFIG_MAX`](crate::limits::CONFIG_MAX) bytes.
    pub config: Vec<u8>,
    /// The state besides RAM, for the machine to read; at most [`STATE_MAX`](crate::limits::STATE_MAX) bytes.
    pub state: Vec<u8>,
}

/// Asks for a part of the state that was announced.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncAsk {
    /// The level in the page tree: 0 for pages, else for the children of its nodes.
    pub level: u8,
    /// Pages that are still to be asked for, these included, as far as that is known.
    pub left: u32,
    /// Which nodes or pages; at most [`ASK_MAX`](echovisor_event::limits::ASK_MAX).
    pub numbers: Vec<u32>,
}

/// The secondary has loaded a state.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The state's position.
    pub position: Position,
    /// The digest of the loaded state.
    pub digest: Digest,
}

/// The primary lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The primary's monotonic clock, nanoseconds, opaque to the secondary, which sends it back.
    pub stamp: u64,
    /// The watermark of the last batch.
    pub watermark: Position,
    /// Effects up to here have left the gate.
    pub released: Position,
}

/// What the secondary holds and how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// It holds every batch before this number.
    pub sequence: u64,
    /// The position that it has executed to.
    pub executed: Position,
    /// The stamp of the last heartbeat seen; 0 before the first.
    pub echo: u64,
    /// Whether what it holds is on its disk, too.
    pub durable: bool,
}

/// The secondary's state is not the primary's.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Diverged {
    /// Where it was noticed.
    pub position: Position,
    /// What differs, for people.
    pub text: String,
}

/// The primary hands the guest over: it stands still, and all that it has done has left.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Where the guest stands; the log is complete up to here.
    pub position: Position,
    /// The digest of its state.
    pub digest: Digest,
}
