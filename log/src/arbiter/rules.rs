//! Which changes of the record are allowed. Each rule takes the present record and gives the new one; the caller then
//! compares-and-sets from the one to the other, and does what the change allows only if it won.

use echovisor_event::{NodeId, Term, VmId};

use super::record::{Mode, Record};

/// A change that the present record does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Somebody runs the virtual machine, or is recorded as doing so.
    #[error("virtual machine {} is held by node {} in term {}", .0.vm, .0.holder, .0.term)]
    Held(Record),
    /// The holder's peer may take over at any time; nobody else may start.
    #[error("virtual machine {vm} is protected by node {peer}, which may have taken over what only it holds")]
    ProtectedByPeer {
        /// The virtual machine.
        vm: VmId,
        /// The peer that may take over.
        peer: NodeId,
    },
    /// This node does not hold the virtual machine any more.
    #[error("node {me} does not hold virtual machine {} any more: node {} does, in term {}", .record.vm, .record.holder, .record.term)]
    Superseded {
        /// The node that asked.
        me: NodeId,
        /// Who holds it.
        record: Record,
    },
    /// This node is not the one that may take over.
    #[error("node {me} does not protect virtual machine {}", .record.vm)]
    NotEligible {
        /// The node that asked.
        me: NodeId,
        /// What stands in the way.
        record: Record,
    },
    /// The virtual machine was shut down on purpose.
    #[error("virtual machine {vm} was shut down in term {term}")]
    Ended {
        /// The virtual machine.
        vm: VmId,
        /// The term in which it ended.
        term: Term,
    },
    /// The virtual machine went on at another node, which then shut it down.
    #[error("virtual machine {} went on at node {}, up to its end in term {}", .0.vm, .0.holder, .0.term)]
    WentOn(Record),
    /// What this node has kept of the virtual machine may lack its end.
    #[error(
        "virtual machine {vm} did not end on purpose here, so its last moments may be missing on this disk"
    )]
    MayRollBack {
        /// The virtual machine.
        vm: VmId,
    },
    /// A node can't protect itself.
    #[error("node {0} cannot be its own peer")]
    Itself(NodeId),
    /// There is no record.
    #[error("the arbiter has no record of this virtual machine")]
    NoRecord,
}

impl RuleError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        Some(match self {
            RuleError::Held(_) | RuleError::ProtectedByPeer { .. } => {
                "join it as a secondary; if all its nodes are gone for good, remove the arbiter's file; never while one may still run"
            }
            RuleError::Superseded { .. } => "join the new primary as a secondary",
            RuleError::NotEligible { .. } => "wait until the primary has granted this node its protection",
            RuleError::Ended { .. } => {
                "a new start begins a new virtual machine; give it a new arbiter's file"
            }
            RuleError::WentOn(_) => {
                "start it from the store of that node; with --accept-rollback it goes on from this one, and what came later is lost"
            }
            RuleError::MayRollBack { .. } => {
                "with --accept-rollback it goes on from what is there, and clients may miss what they have seen; with --ack disk that cannot happen"
            }
            RuleError::NoRecord => "was the arbiter's file removed while the virtual machine was running?",
            RuleError::Itself(_) => return None,
        })
    }
}

/// `me` starts the virtual machine, for the first time or after a stop. The term is a new one, so that nothing that an
/// earlier run has left in the network counts.
///
/// # Errors
///
/// [`RuleError::Held`], [`RuleError::ProtectedByPeer`].
pub fn start(present: Option<&Record>, vm: VmId, me: NodeId) -> Result<Record, RuleError> {
    let term = match present {
        None => Term(1),
        // Whoever begins a new virtual machine must not push another one aside that may be running. What was shut down on
        // purpose leaves its place to whoever comes next.
        Some(record) if record.vm != vm && record.mode != Mode::Ended => {
            return Err(RuleError::Held(*record));
        }
        Some(record) => match record.mode {
            Mode::Ended => record.term.next(),
            // It held the machine alone when it died: nobody can have gone on without it.
            Mode::Solo if record.holder == me => record.term.next(),
            Mode::Protected(peer) if record.holder == me => {
                return Err(RuleError::ProtectedByPeer { vm, peer });
            }
            _ => return Err(RuleError::Held(*record)),
        },
    };
    Ok(Record { vm, term, holder: me, mode: Mode::Solo })
}

/// What a node has kept of a virtual machine that it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Everything that led to what anybody may have seen of it.
    Whole,
    /// The end may be missing.
    Partly,
    /// The end may be missing, and that is accepted.
    RollbackAccepted,
}

/// `me`, whose node ended, goes on with the virtual machine from what it has kept, which reaches up to the term `known`. A
/// record of a later term, even of this node, is of a history that it has not kept.
///
/// # Errors
///
/// [`RuleError::Held`], [`RuleError::ProtectedByPeer`], [`RuleError::WentOn`], [`RuleError::MayRollBack`].
pub fn restart(
    present: Option<&Record>,
    vm: VmId,
    me: NodeId,
    known: Term,
    kept: Kept,
) -> Result<Record, RuleError> {
    let newest = match present {
        // Whoever removes the record says that nobody else has gone on.
        None => known,
        Some(record) if record.vm != vm || record.holder != me || record.term > known => match record.mode {
            Mode::Ended if kept == Kept::RollbackAccepted => record.term,
            Mode::Ended => return Err(RuleError::WentOn(*record)),
            Mode::Solo | Mode::Protected(_) => return Err(RuleError::Held(*record)),
        },
        // What the peer holds and this node does not would be lost.
        Some(Record { mode: Mode::Protected(peer), .. }) if kept == Kept::Partly => {
            return Err(RuleError::ProtectedByPeer { vm, peer: *peer });
        }
        Some(record) => record.term,
    };
    if kept == Kept::Partly {
        return Err(RuleError::MayRollBack { vm });
    }
    Ok(Record { vm, term: newest.max(known).next(), holder: me, mode: Mode::Solo })
}

/// The holder `me` lets `peer` protect it, after the peer's state has proved equal.
///
/// # Errors
///
/// [`RuleError::Superseded`], [`RuleError::Ended`], [`RuleError::NoRecord`], [`RuleError::Itself`].
pub fn protect(present: Option<&Record>, me: NodeId, peer: NodeId) -> Result<Record, RuleError> {
    let record = held(present, me)?;
    if peer == me {
        return Err(RuleError::Itself(me));
    }
    Ok(Record { mode: Mode::Protected(peer), ..record })
}

/// The holder `me` gives up its peer. Only when this has won may it release what the peer has not acknowledged.
///
/// # Errors
///
/// [`RuleError::Superseded`], [`RuleError::Ended`], [`RuleError::NoRecord`].
pub fn go_solo(present: Option<&Record>, me: NodeId) -> Result<Record, RuleError> {
    Ok(Record { mode: Mode::Solo, ..held(present, me)? })
}

/// The peer `me` takes over from a holder that it suspects to be dead: the next term, alone.
///
/// # Errors
///
/// [`RuleError::NotEligible`], [`RuleError::Ended`], [`RuleError::NoRecord`].
pub fn take_over(present: Option<&Record>, me: NodeId) -> Result<Record, RuleError> {
    let record = *present.ok_or(RuleError::NoRecord)?;
    match record.mode {
        Mode::Protected(peer) if peer == me => {
            Ok(Record { term: record.term.next(), holder: me, mode: Mode::Solo, ..record })
        }
        Mode::Ended => Err(RuleError::Ended { vm: record.vm, term: record.term }),
        _ => Err(RuleError::NotEligible { me, record }),
    }
}

/// The holder `me` has shut the virtual machine down on purpose; nobody takes over.
///
/// # Errors
///
/// [`RuleError::Superseded`], [`RuleError::Ended`], [`RuleError::NoRecord`].
pub fn end(present: Option<&Record>, me: NodeId) -> Result<Record, RuleError> {
    Ok(Record { mode: Mode::Ended, ..held(present, me)? })
}

fn held(present: Option<&Record>, me: NodeId) -> Result<Record, RuleError> {
    let record = *present.ok_or(RuleError::NoRecord)?;
    match record.mode {
        _ if record.holder != me => Err(RuleError::Superseded { me, record }),
        Mode::Ended => Err(RuleError::Ended { vm: record.vm, term: record.term }),
        Mode::Solo | Mode::Protected(_) => Ok(record),
    }
}
