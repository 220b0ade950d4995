//! The processes of a simulated host: the real engines, and around them what a real node does with sockets and threads.

pub(crate) mod primary;
pub(crate) mod replica;
pub(crate) mod secondary;
pub(crate) mod world;

use std::time::Duration;

use echovisor_event::NodeId;
use echovisor_log::{
    arbiter::{Asking, Question},
    link::{Hello, Sender},
};
use fastrand::Rng;

use crate::time::{Instants, Time};

/// What a step of a process sees of its surroundings, and what it wants of them.
pub(crate) struct Step<'a> {
    pub(crate) now: Time,
    /// The host's CLOCK_BOOTTIME.
    pub(crate) local: Duration,
    pub(crate) instants: Instants,
    pub(crate) rng: &'a mut Rng,
    pub(crate) wants: &'a mut Vec<Want>,
}

/// What a process wants of the simulation.
pub(crate) enum Want {
    /// The arbiter's answer to a question.
    Ask(Question),
    /// A connection to where the primary is, at this time.
    Dial(Duration, Hello),
    /// That somebody writes out what is queued, and closes the connection.
    HangUp(Sender),
    /// That the guest's thread runs.
    RunGuest,
    /// To become the primary.
    Promote(echovisor_log::arbiter::Record),
    /// To follow who runs the guest by this record.
    Follow(echovisor_log::arbiter::Record),
    /// To end.
    Exit,
    /// To end with an error.
    Fail,
}

/// One run of the program.
pub(crate) struct Process {
    pub(crate) id: NodeId,
    pub(crate) role: Role,
    pub(crate) asking: Option<Asking>,
}

/// What it is.
pub(crate) enum Role {
    Primary(Box<primary::Primary>),
    Secondary(Box<secondary::Secondary>),
}
