//! A planned switchover, as the primary sees it: the guest stands still at a checkpoint, all that it has done leaves, the
//! secondary is told, takes over through the arbiter, and this node halts. Whatever goes wrong before the secondary is told is
//! taken back; after that only the arbiter says who goes on.

use std::time::Duration;

use echovisor_event::NodeId;

use super::{Action, Protocol, State};

/// How far a planned switchover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The arbiter is asked for what it has on record already, so that the guest does not stand still for one that is silent.
    Asking,
    /// The guest is to stand still. Until the secondary has been told, all of this can be taken back.
    Pausing,
    /// The secondary has been told: who goes on is up to the arbiter.
    Told,
}

/// A planned switchover that somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    /// When its present step is given up.
    until: Duration,
    /// The guest stands still for it, or soon will.
    paused: bool,
}

impl Protocol {
    /// The operator wants the secondary to become the primary.
    pub(super) fn hand_over(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let why = match self.state {
            State::Protected(peer, true) => {
                self.handover = Some(Handover { until: now + self.timing.handover, paused: false });
                return self.ask(State::Handing(peer, Step::Asking), self.record, actions);
            }
            State::Handing(..) => {
                // Whoever asks again waits for the same. It may have been given up while the arbiter was silent.
                let until = now + self.timing.handover;
                self.handover.get_or_insert(Handover { until, paused: false });
                return;
            }
            State::Solo => "the primary has no secondary",
            State::Joining(_) | State::Granting(_) => "the secondary is still joining",
            State::Protected(_, false) => "the link between primary and secondary is lost",
            State::Leaving(_) => "the primary has given its secondary up",
            State::Ending | State::Ended => "the guest has ended",
            State::Fenced => "another node runs the guest already",
        };
        actions.push(Action::Keep(why));
    }

    /// The arbiter answers: stops the guest, if that is still wanted.
    pub(super) fn pause(&mut self, now: Duration, peer: NodeId, actions: &mut Vec<Action>) {
        match &mut self.handover {
            Some(handover) if self.linked && !self.end_wanted => {
                *handover = Handover { until: now + self.timing.handover, paused: true };
                self.state = State::Handing(peer, Step::Pausing);
                actions.push(Action::Pause);
            }
            _ => self.keep("the link to the secondary was lost", actions),
        }
    }

    /// The guest stands still, and all its effects have left. Tells the secondary as soon as it holds all of the log.
    pub(super) fn quiet(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if let (State::Handing(peer, Step::Pausing), Some(handover), true) =
            (self.state, &mut self.handover, self.unacknowledged.is_empty())
        {
            handover.until = now + self.timing.handover;
            self.state = State::Handing(peer, Step::Told);
            actions.push(Action::HandOver);
        }
    }

    /// Gives up a step that takes too long.
    pub(super) fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let (State::Handing(peer, step), Some(handover)) = (self.state, &self.handover) else { return };
        if now < handover.until {
            return;
        }
        match step {
            // Its answer is still waited for, since only one question can be open.
            Step::Asking => self.keep("the arbiter gives no answer", actions),
            Step::Pausing => {
                self.state = State::Protected(peer, true);
                self.keep("the guest did not come to a halt in time", actions);
            }
            Step::Told => {
                actions.push(Action::CloseLink("it does not take the guest over"));
                self.give_up(actions);
            }
        }
    }

    /// There will be no switchover: the guest goes on here.
    pub(super) fn keep(&mut self, why: &'static str, actions: &mut Vec<Action>) {
        if let Some(Handover { paused, .. }) = self.handover.take() {
            if paused {
                actions.push(Action::Resume);
            }
            actions.push(Action::Keep(why));
        }
    }
}
