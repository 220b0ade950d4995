//! Protocols that are broken on purpose: the oracles must find each of them, or they prove nothing.

use std::time::Duration;

use echovisor_event::{NodeId, Position};
use echovisor_log::{
    arbiter::{Answer, Mode, Question},
    link::Message,
};
use echovisor_recorder::gate::Gate;
use echovisor_replayer::secondary::Engine;

use crate::node::{Step, Want};

/// What is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Nothing.
    #[default]
    None,
    /// The gate releases without waiting for an acknowledgement.
    OpenGate,
    /// Effects leave also after the lease has run out.
    EndlessLease,
    /// A primary gives its peer up without asking the arbiter.
    SoloUnasked,
    /// A secondary believes that it may take over as soon as it has loaded the state.
    EligibleEarly,
    /// A new primary does not send again what the old one may not have sent.
    NothingSentAgain,
    /// A secondary that is to become the primary takes the guest without waiting for the present one.
    Seizes,
}

impl Mutant {
    pub(crate) fn spoil_gate(self, gate: &Gate) {
        match self {
            Mutant::OpenGate => gate.acknowledge(Position(u64::MAX)),
            Mutant::EndlessLease => gate.renew(Duration::MAX),
            _ => {}
        }
    }

    /// The answer to a question that is not asked.
    pub(crate) fn answer(self, question: &Question) -> Option<Answer> {
        match question {
            Question::Replace { to, .. } if self == Mutant::SoloUnasked && to.mode == Mode::Solo => {
                Some(Answer::Won(*to))
            }
            _ => None,
        }
    }

    pub(crate) fn seize(self, me: NodeId, step: &mut Step<'_>) {
        if self == Mutant::Seizes {
            step.wants.push(Want::Ask(Question::TakeOver(me)));
        }
    }

    pub(crate) fn grant_early(self, engine: &mut Engine, step: &Step<'_>) {
        if self == Mutant::EligibleEarly {
            let at = step.instants.at(step.now);
            engine.message(step.local, at, Message::Grant(Position::BOOT), None);
        }
    }
}
