//! The primary's side of the replication protocol, as a pure state machine.
//!
//! Inputs are what came in and what time it is; outputs are what to do. There is no socket, clock or task in here, so a
//! simulator can drive it through anything.

mod handover;

use std::{collections::VecDeque, time::Duration};

use echovisor_event::{NodeId, Position};
use echovisor_log::{
    arbiter::{Mode, Record, rules},
    link::Ack,
};

use self::handover::Handover;
pub use self::handover::Step;

/// How long the parts of the protocol take. All times are on CLOCK_BOOTTIME, which also runs while the host sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a primary says that it lives.
    pub heartbeat: Duration,
    /// How long a silent peer is trusted to be alive.
    pub suspicion: Duration,
    /// How far the secondary's execution may be behind before the guest waits for it.
    pub lag: Duration,
    /// How far it may be behind before the primary gives it up.
    pub lag_max: Duration,
    /// How long a secondary that joins may take for the next step: to ask for more of the state, or to catch up once it has it.
    pub join: Duration,
    /// How long each part of a planned switchover may take: until the guest stands still and all that it has done has left;
    /// until the secondary has taken it over.
    pub handover: Duration,
}

/// How many times the suspicion time a secondary that joins may be silent: on a slow link it answers to each part of the
/// state only when that has come.
const JOINER_PATIENCE: u32 = 10;

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(125),
            suspicion: Duration::from_millis(500),
            lag: Duration::from_millis(100),
            lag_max: Duration::from_secs(5),
            join: Duration::from_secs(120),
            handover: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// How long an echoed heartbeat allows effects to leave: shorter than the suspicion time, in which the peer, which saw
    /// that heartbeat later than it was sent, does not take over.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.suspicion * 4 / 5
    }
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A secondary that holds nothing connected.
    Joined(NodeId),
    /// The secondary connected again and goes on where it was.
    Resumed(NodeId),
    /// It asked for a part of the state.
    Asked,
    /// It loaded the state, which has the digest that was announced.
    Ready,
    /// It acknowledged.
    Acknowledged(Ack),
    /// Its state is not the primary's.
    Diverged,
    /// The connection was closed, by whomever.
    LinkLost,
    /// A batch was sent: its number and watermark.
    Sent(u64, Position),
    /// The arbiter did what [`Action::CompareAndSet`] asked for.
    Won,
    /// The arbiter's record is another one.
    Lost(Record),
    /// The secondary is to become the primary, as the operator wants.
    HandOver,
    /// The guest stands still as [`Action::Pause`] asked for, and all its effects have left.
    Quiet,
    /// The guest has ended, and all its effects have left.
    End,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the guest's state and give it to the peer, then the log from there.
    SendImage,
    /// Replace the arbiter's record `from` by `to`, and go on trying until it answers.
    CompareAndSet {
        /// The record that is expected.
        from: Record,
        /// The new one.
        to: Record,
    },
    /// From now on the peer's acknowledgement is required, and effects may leave until then; tell it from which position it
    /// may take over.
    Protect(Duration),
    /// The peer's acknowledgement is not required any more.
    Unprotect,
    /// The peer is gone for good: keep nothing for it.
    Forget,
    /// The peer holds the log up to this watermark.
    Acknowledge(Position),
    /// Effects may leave until then.
    Renew(Duration),
    /// Say that the primary lives, with this stamp.
    Heartbeat(Duration),
    /// Let the guest wait, or run again.
    Throttle(bool),
    /// Let the guest stand still behind a checkpoint.
    Pause,
    /// Let it go on.
    Resume,
    /// Tell the secondary that the log ends here, for it to go on with the guest.
    HandOver,
    /// Tell who asked for a switchover that there is none, and why.
    Keep(&'static str),
    /// Close the connection; the text is for people.
    CloseLink(&'static str),
    /// Another primary runs the guest: let nothing out any more, and stop.
    Halt(Record),
    /// The guest's end is on record: say goodbye.
    Finish,
}

/// How the guest is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not at all.
    Solo,
    /// A secondary is being given the state, or catches up with the log.
    Joining(NodeId),
    /// It is ready, and the arbiter is asked to record it.
    Granting(NodeId),
    /// The guest is protected. The flag says whether the peer is connected.
    Protected(NodeId, bool),
    /// The guest is protected, and is being handed over.
    Handing(NodeId, Step),
    /// The peer is given up, and the arbiter is asked to record that. Effects wait.
    Leaving(NodeId),
    /// The guest has ended, and the arbiter is asked to record that.
    Ending,
    /// It is recorded.
    Ended,
    /// Another primary runs the guest.
    Fenced,
}

/// The primary's side of the protocol.
#[derive(Debug)]
pub struct Protocol {
    me: NodeId,
    timing: Timing,
    /// As far as this node knows. It is the holder unless it is fenced.
    record: Record,
    state: State,
    /// Whether the peer is connected.
    linked: bool,
    /// When the peer that joins did its last step.
    joined: Duration,
    /// When the peer was last heard.
    heard: Duration,
    heartbeat_at: Duration,
    /// Batches that are not acknowledged: number and watermark.
    unacknowledged: VecDeque<(u64, Position)>,
    /// Batches that are not executed: watermark, and when they were sent.
    unexecuted: VecDeque<(Position, Duration)>,
    throttled: bool,
    /// The secondary that joins has loaded the state.
    loaded: bool,
    /// The peer that is given up is still there, and is given another state.
    heals: bool,
    /// The guest ended while the arbiter was busy with something else.
    end_wanted: bool,
    handover: Option<Handover>,
}

impl Protocol {
    /// A primary that runs alone, as `record` says.
    #[must_use]
    pub fn new(me: NodeId, record: Record, timing: Timing) -> Protocol {
        Protocol {
            me,
            timing,
            record,
            state: State::Solo,
            linked: false,
            joined: Duration::ZERO,
            heard: Duration::ZERO,
            heartbeat_at: Duration::ZERO,
            unacknowledged: VecDeque::new(),
            unexecuted: VecDeque::new(),
            throttled: false,
            loaded: false,
            heals: false,
            end_wanted: false,
            handover: None,
        }
    }

    /// How long the parts of the protocol take.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// How the guest is protected.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The arbiter's record, as far as this node knows.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether a secondary that connects now can be taken: as a new one, or as the one that goes on.
    #[must_use]
    pub fn welcomes(&self, peer: NodeId, resumes: bool) -> bool {
        match self.state {
            State::Solo => !resumes,
            State::Protected(own, _) => resumes && own == peer,
            _ => false,
        }
    }

    /// How far the secondary's execution is behind.
    #[must_use]
    pub fn lag(&self, now: Duration) -> Duration {
        self.unexecuted.front().map_or(Duration::ZERO, |(_, sent)| now.saturating_sub(*sent))
    }

    /// When to call with [`Input::Tick`], if nothing comes in before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        match self.state {
            State::Joining(_)
            | State::Granting(_)
            | State::Protected(_, true)
            | State::Handing(..)
            | State::Ending => Some(self.heartbeat_at),
            State::Leaving(_) if self.heals => Some(self.heartbeat_at),
            State::Protected(_, false) => Some(self.heard + self.timing.suspicion),
            _ => None,
        }
    }

    /// Takes an input at the time `now` and says what to do.
    pub fn step(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        tracing::trace!(target: "echovisor::primary", state = ?self.state, ?input);
        match input {
            Input::Joined(peer) => self.joined(now, peer, actions),
            Input::Resumed(peer) => {
                self.linked = true;
                self.heard = now;
                self.heartbeat_at = now;
                self.state = State::Protected(peer, true);
            }
            Input::Asked => {
                self.heard = now;
                self.joined = now;
            }
            Input::Ready => {
                self.heard = now;
                self.joined = now;
                self.loaded = true;
            }
            Input::Acknowledged(ack) => self.acknowledged(now, &ack, actions),
            Input::Diverged => self.diverged(now, actions),
            Input::LinkLost => self.link_lost(actions),
            Input::Sent(sequence, watermark) => {
                self.unacknowledged.push_back((sequence, watermark));
                self.unexecuted.push_back((watermark, now));
            }
            Input::Won => self.won(now, actions),
            Input::Lost(record) => {
                self.state = State::Fenced;
                actions.push(Action::Halt(record));
            }
            Input::HandOver => self.hand_over(now, actions),
            Input::Quiet => self.quiet(now, actions),
            Input::End => self.end(actions),
            Input::Tick => {}
        }
        self.tick(now, actions);
    }

    fn joined(&mut self, now: Duration, peer: NodeId, actions: &mut Vec<Action>) {
        self.linked = true;
        self.joined = now;
        self.heard = now;
        self.heartbeat_at = now;
        self.unacknowledged.clear();
        self.unexecuted.clear();
        self.loaded = false;
        self.state = State::Joining(peer);
        actions.push(Action::SendImage);
    }

    /// The peer protects nobody any more, and is given another state. The arbiter is asked first if it had agreed.
    fn diverged(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.state {
            State::Joining(peer) => self.joined(now, peer, actions),
            State::Protected(_, true) => {
                self.heals = true;
                self.give_up(actions);
            }
            _ => {
                self.linked = false;
                actions.push(Action::CloseLink("its state is not ours: it must join anew"));
                self.give_up(actions);
            }
        }
    }

    fn acknowledged(&mut self, now: Duration, ack: &Ack, actions: &mut Vec<Action>) {
        self.heard = now;
        let mut held = None;
        while let Some((_, watermark)) =
            self.unacknowledged.pop_front_if(|(sequence, _)| *sequence < ack.sequence)
        {
            held = Some(watermark);
        }
        while self.unexecuted.pop_front_if(|(watermark, _)| *watermark <= ack.executed).is_some() {}
        if let State::Protected(..) | State::Handing(..) = self.state {
            // The stamp is a reading of this node's own clock. One of the future is none, and promises nothing.
            let stamp = Duration::from_nanos(ack.echo);
            if ack.echo > 0 && stamp <= now {
                actions.push(Action::Renew(stamp + self.timing.lease()));
            }
            if let Some(watermark) = held {
                actions.push(Action::Acknowledge(watermark));
            }
        }
    }

    fn link_lost(&mut self, actions: &mut Vec<Action>) {
        self.linked = false;
        self.heals = false;
        match self.state {
            State::Joining(_) => self.back_to_solo(actions),
            State::Protected(peer, _) => self.state = State::Protected(peer, false),
            State::Handing(peer, Step::Pausing) => {
                self.state = State::Protected(peer, false);
                self.keep("the link to the secondary was lost", actions);
            }
            // It may have taken over, or be gone.
            State::Handing(_, Step::Told) => self.give_up(actions),
            // The arbiter's answer decides what comes next.
            _ => {}
        }
    }

    fn won(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.state {
            State::Granting(peer) => {
                self.record.mode = Mode::Protected(peer);
                self.state = State::Protected(peer, self.linked);
                self.heard = now;
                if !self.linked {
                    // It was never told, so nobody need be waited for.
                    self.give_up(actions);
                    return;
                }
                // It cannot suspect anybody before it has been granted anything.
                actions.push(Action::Protect(now + self.timing.lease()));
            }
            State::Handing(peer, Step::Asking) => {
                self.state = State::Protected(peer, self.linked);
                self.pause(now, peer, actions);
            }
            State::Leaving(peer) => {
                self.record.mode = Mode::Solo;
                actions.push(Action::Unprotect);
                if std::mem::take(&mut self.heals) && self.linked {
                    self.joined(now, peer, actions);
                } else {
                    self.back_to_solo(actions);
                }
            }
            State::Ending => {
                self.state = State::Ended;
                actions.push(Action::Finish);
            }
            _ => {}
        }
        if self.end_wanted {
            self.end(actions);
        }
    }

    fn back_to_solo(&mut self, actions: &mut Vec<Action>) {
        self.state = State::Solo;
        actions.push(Action::Forget);
        self.unacknowledged.clear();
        self.unexecuted.clear();
        self.throttle(false, actions);
        self.keep("the secondary was lost before it had taken over", actions);
    }

    /// The peer is of no use: asks the arbiter to go on without it.
    fn give_up(&mut self, actions: &mut Vec<Action>) {
        match self.state {
            State::Joining(_) => self.back_to_solo(actions),
            State::Protected(peer, _) | State::Handing(peer, Step::Pausing | Step::Told) => {
                // Whatever comes next, it does not come from a peer that is behind.
                self.throttle(false, actions);
                if let Ok(to) = rules::go_solo(Some(&self.record), self.me) {
                    self.ask(State::Leaving(peer), to, actions);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, actions: &mut Vec<Action>) {
        match self.state {
            State::Granting(_) | State::Leaving(_) | State::Handing(_, Step::Asking | Step::Told) => {
                self.end_wanted = true;
            }
            State::Ending | State::Ended | State::Fenced => {}
            State::Solo | State::Joining(_) | State::Protected(..) | State::Handing(_, Step::Pausing) => {
                self.end_wanted = false;
                self.keep("the guest ends", actions);
                if let Ok(to) = rules::end(Some(&self.record), self.me) {
                    self.ask(State::Ending, to, actions);
                }
            }
        }
    }

    fn ask(&mut self, state: State, to: Record, actions: &mut Vec<Action>) {
        self.state = state;
        actions.push(Action::CompareAndSet { from: self.record, to });
    }

    /// What time brings: heartbeats, suspicion, lag.
    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let speaks = match self.state {
            State::Joining(_) | State::Granting(_) | State::Handing(..) | State::Ending => true,
            State::Protected(_, connected) => connected,
            // Who is silent to a peer that has diverged seems to be dead to it.
            State::Leaving(_) => self.heals,
            _ => false,
        };
        if speaks && now >= self.heartbeat_at {
            self.heartbeat_at = now + self.timing.heartbeat;
            actions.push(Action::Heartbeat(now));
        }
        if let State::Joining(peer) = self.state {
            self.join(now, peer, actions);
        }
        let connected = match self.state {
            State::Protected(_, connected) => connected,
            State::Handing(_, Step::Pausing | Step::Told) => self.linked,
            State::Handing(_, Step::Asking) => {
                // Whether the secondary is gone can only be asked when the arbiter has answered.
                self.throttle(self.lag(now) >= self.timing.lag, actions);
                self.expire(now, actions);
                return;
            }
            _ => return,
        };
        let lag = self.lag(now);
        let silent = now.saturating_sub(self.heard) >= self.timing.suspicion;
        if silent || lag >= self.timing.lag_max {
            if connected {
                actions.push(Action::CloseLink(if silent { "it is silent" } else { "it is too far behind" }));
            }
            self.give_up(actions);
        } else {
            self.throttle(lag >= self.timing.lag, actions);
            self.expire(now, actions);
        }
    }

    /// A secondary that joins does not hold the guest up, and may be far behind when it has loaded the state. It protects the
    /// guest once it has caught up.
    fn join(&mut self, now: Duration, peer: NodeId, actions: &mut Vec<Action>) {
        let silent = now.saturating_sub(self.heard) >= self.timing.suspicion * JOINER_PATIENCE;
        if silent || now.saturating_sub(self.joined) >= self.timing.join {
            let why = if silent { "it is silent" } else { "it does not finish joining" };
            actions.push(Action::CloseLink(why));
            self.back_to_solo(actions);
        } else if self.loaded && self.lag(now) < self.timing.lag {
            match rules::protect(Some(&self.record), self.me, peer) {
                Ok(to) => self.ask(State::Granting(peer), to, actions),
                Err(_) => {
                    actions.push(Action::CloseLink("a node cannot be its own secondary"));
                    self.back_to_solo(actions);
                }
            }
        }
    }

    fn throttle(&mut self, throttle: bool, actions: &mut Vec<Action>) {
        if self.throttled != throttle {
            self.throttled = throttle;
            actions.push(Action::Throttle(throttle));
        }
    }
}

#[cfg(test)]
mod tests;
