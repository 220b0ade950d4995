//! The secondary's side of the replication protocol, as a pure state machine.
//!
//! Inputs are what came in and what time it is; outputs are what to do. There is no socket, clock or task in here, so a
//! simulator can drive it through anything.

use std::time::Duration;

use echovisor_event::Position;
use echovisor_log::arbiter::Record;

/// How often the guest goes back before the primary is heard again. A fault of the memory does not recur, but another may come; who
/// leaves the log's course for another reason does so each time.
const ATTEMPTS: u32 = 3;

/// How long the parts of the protocol take. All times are on CLOCK_BOOTTIME, which also runs while the host sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a silent primary is trusted to be alive.
    pub suspicion: Duration,
    /// How long to wait before a primary that is not there, or does not want this node, is dialled again.
    pub redial: Duration,
    /// How long to wait before a primary that gave no answer is dialled again, while this node could take over: a process that
    /// is dying may accept a connection with its last breath.
    pub retry: Duration,
    /// How long a primary may be silent while it sends the state: there is nothing to lose yet.
    pub join: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            suspicion: Duration::from_millis(500),
            redial: Duration::from_millis(200),
            retry: Duration::from_millis(10),
            join: Duration::from_secs(30),
        }
    }
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A link is there, and the primary goes on where this node was (`true`), or sends its state.
    Connected(bool),
    /// The primary's host says that nobody listens at its address.
    Unreachable,
    /// No answer came from the primary's address, for whatever reason.
    NoAnswer,
    /// The primary answers, but does not want this node now.
    Refused,
    /// The primary has a state for this node, and will go on without it until it has that.
    Announced,
    /// The state is loaded, and has the digest that was announced.
    Loaded,
    /// The primary lives: a message came in.
    Heard,
    /// From this position on this node may take over.
    Granted(Position),
    /// The log is held up to this watermark.
    Held(Position),
    /// The link is gone, by whatever cause.
    LinkLost,
    /// The replayed guest took another course than the log.
    Diverged,
    /// It has gone back to its last verified state and executed again all that is held of the log.
    WentBack,
    /// What came in is of no use: no state can be made of it, or no log.
    Unfit,
    /// The primary hands the guest over: it stands still at the end of the log.
    HandedOver,
    /// All of the log is executed, and the guest's state is the primary's.
    Executed,
    /// The primary has said goodbye.
    Goodbye,
    /// The arbiter has made this node the primary, as this record says.
    Won(Record),
    /// The arbiter has not.
    Lost,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the primary, at this time; with the place in the log if the state is still there.
    Dial(Duration),
    /// Close the link.
    CloseLink,
    /// Say that the state is loaded.
    SayReady,
    /// Let the guest go back to its last verified state, and execute again all that is held of the log.
    GoBack,
    /// Forget guest and log.
    Forget,
    /// Ask the arbiter for the guest, and go on trying until it answers.
    AskArbiter,
    /// Execute the rest of the log, then go live as this record says.
    Promote(Record),
}

/// Where a secondary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It looks for the primary, and holds nothing.
    Dialling,
    /// It is being given the state: the first one, or another because its own was not the primary's.
    Loading,
    /// It follows the log.
    Following,
    /// It is handed the guest, and executes the rest of the log.
    Receiving,
    /// The link broke, and it looks whether the primary is still there.
    Redialling,
    /// It asks the arbiter for the guest.
    TakingOver,
    /// It has it.
    Promoted,
    /// The guest has ended.
    Ended,
}

/// The secondary's side of the protocol.
#[derive(Debug)]
pub struct Protocol {
    timing: Timing,
    state: State,
    /// From where on the primary lets this node take over.
    granted: Option<Position>,
    /// The log is held up to this watermark.
    held: Position,
    /// The guest has left the log's course. What was granted stays until the primary has another state for this node: if it
    /// dies before that, everything that has left it is held here, behind a state that was verified.
    strayed: bool,
    /// How often the guest was to go back since the primary was heard last.
    attempts: u32,
    /// When the primary was last heard.
    heard: Duration,
}

impl Protocol {
    /// A secondary that holds nothing. Call [`Protocol::step`] with [`Input::Tick`] to begin.
    #[must_use]
    pub fn new(timing: Timing) -> Protocol {
        Protocol {
            timing,
            state: State::Dialling,
            granted: None,
            held: Position::BOOT,
            strayed: false,
            attempts: 0,
            heard: Duration::ZERO,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it may take over: the primary has granted it, and everything that has left the primary since is held here.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        !self.strayed && self.holds_all()
    }

    /// Whether it could take over if its guest had not left the log's course: it can go back and execute the log again.
    #[must_use]
    pub fn may_go_back(&self) -> bool {
        self.strayed && self.attempts < ATTEMPTS && self.holds_all()
    }

    /// Whether its guest is on its way back, and it looks whether the primary is still there.
    #[must_use]
    pub fn is_going_back(&self) -> bool {
        self.strayed && self.state == State::Redialling
    }

    fn holds_all(&self) -> bool {
        self.granted.is_some_and(|granted| self.held >= granted)
    }

    /// When the primary was last heard.
    #[must_use]
    pub fn heard(&self) -> Duration {
        self.heard
    }

    /// At this time something came in, be it only a part of a message.
    pub fn heard_at(&mut self, at: Duration) {
        self.heard = self.heard.max(at);
    }

    /// When to call with [`Input::Tick`], if nothing comes in before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.patience().map(|patience| self.heard + patience)
    }

    /// How long the primary may be silent now.
    fn patience(&self) -> Option<Duration> {
        match self.state {
            State::Loading if self.may_go_back() => Some(self.timing.suspicion),
            State::Loading => Some(self.timing.join),
            State::Following | State::Receiving => Some(self.timing.suspicion),
            _ => None,
        }
    }

    /// Begins: dials.
    pub fn begin(&mut self, now: Duration, actions: &mut Vec<Action>) {
        actions.push(Action::Dial(now));
    }

    /// Takes an input at the time `now` and says what to do.
    pub fn step(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        tracing::trace!(target: "echovisor::secondary", state = ?self.state, ?input);
        match (self.state, input) {
            (State::Promoted | State::Ended, _) => return,
            (State::Dialling | State::Redialling, Input::Connected(resumed)) => {
                self.connected(now, resumed, actions)
            }
            (State::Dialling, Input::Unreachable | Input::NoAnswer | Input::Refused) => {
                self.dial_later(now, actions)
            }
            // Whoever is there or not: this node cannot take over before its guest has gone back.
            (State::Redialling, Input::Unreachable | Input::NoAnswer) if self.strayed => {
                actions.push(Action::Dial(now + self.timing.retry));
            }
            (State::Redialling, Input::WentBack) => self.strayed = false,
            // The process is dead.
            (State::Redialling, Input::Unreachable) => self.suspect(now, actions),
            // The host is dead, or busy: that takes the suspicion time to tell apart.
            (State::Redialling, Input::NoAnswer)
                if now.saturating_sub(self.heard) >= self.timing.suspicion =>
            {
                self.suspect(now, actions);
            }
            // Somebody is alive there and does not want this node now. What is held here stays: only a primary that goes on
            // without it, or the arbiter, says that it is the past.
            (State::Redialling, Input::Refused) => self.dial_later(now, actions),
            (State::Redialling, Input::NoAnswer) => actions.push(Action::Dial(now + self.timing.retry)),
            // The arbiter has agreed that the primary goes on alone: what is held here is the past.
            (State::Loading, Input::Announced) => self.forget(),
            (State::Loading, Input::Loaded) => {
                self.state = State::Following;
                actions.push(Action::SayReady);
            }
            (State::Loading, Input::Granted(position)) if self.strayed => self.granted = Some(position),
            (State::Loading, Input::Held(watermark)) if self.strayed => self.held = watermark,
            (State::Following, Input::Granted(position)) => self.granted = Some(position),
            (State::Following, Input::Held(watermark)) => self.held = watermark,
            (State::Loading, Input::LinkLost) if self.may_go_back() => self.go_back(now, actions),
            (State::Loading, Input::LinkLost) => self.restart(now, actions),
            (State::Following | State::Receiving, Input::LinkLost) => self.link_lost(now, actions),
            (State::Following, Input::HandedOver) if self.is_eligible() => self.state = State::Receiving,
            // Nobody suspects anybody: the primary stands still, and waits for the arbiter's word.
            (State::Receiving, Input::Executed) => {
                self.state = State::TakingOver;
                actions.push(Action::AskArbiter);
            }
            // The primary is there, and gives this node another state.
            (State::Following, Input::Diverged) => {
                self.strayed = true;
                self.heard = now;
                self.state = State::Loading;
            }
            (State::Redialling, Input::Diverged) => {
                self.strayed = true;
                if self.may_go_back() {
                    self.go_back(now, actions);
                } else {
                    self.restart(now, actions);
                }
            }
            (State::Receiving, Input::Diverged)
            | (State::Following, Input::HandedOver)
            | (State::Loading | State::Following | State::Receiving | State::Redialling, Input::Unfit) => {
                actions.push(Action::CloseLink);
                self.restart(now, actions);
            }
            (State::TakingOver, Input::Won(record)) => {
                self.state = State::Promoted;
                actions.push(Action::Promote(record));
            }
            (State::TakingOver, Input::Lost) => {
                actions.push(Action::CloseLink);
                self.restart(now, actions);
            }
            (_, Input::Goodbye) => {
                self.state = State::Ended;
            }
            _ => {}
        }
        if matches!(input, Input::Heard | Input::Granted(_) | Input::Held(_) | Input::Loaded) {
            self.heard = now;
        }
        if self.patience().is_some_and(|patience| now.saturating_sub(self.heard) >= patience) {
            actions.push(Action::CloseLink);
            self.suspect(now, actions);
        }
    }

    fn connected(&mut self, now: Duration, resumed: bool, actions: &mut Vec<Action>) {
        self.heard = now;
        if resumed && self.is_eligible() {
            self.state = State::Following;
            self.attempts = 0;
            return;
        }
        if resumed {
            // There is nothing here with which to go on.
            actions.push(Action::CloseLink);
            self.dial_later(now, actions);
            return;
        }
        if self.state == State::Redialling {
            // The primary has gone on alone, as the arbiter allowed: what is held here is the past.
            actions.push(Action::Forget);
            self.forget();
        }
        self.state = State::Loading;
    }

    fn link_lost(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.is_eligible() {
            self.state = State::Redialling;
            actions.push(Action::Dial(now));
        } else {
            self.restart(now, actions);
        }
    }

    /// The primary is not there while the guest is on a wrong course: what is held here may be all that is left of it.
    fn go_back(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.state = State::Redialling;
        self.attempts += 1;
        actions.push(Action::GoBack);
        actions.push(Action::Dial(now));
    }

    /// The primary seems to be dead.
    fn suspect(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.is_eligible() {
            self.state = State::TakingOver;
            actions.push(Action::AskArbiter);
        } else if self.may_go_back() {
            self.go_back(now, actions);
        } else {
            self.restart(now, actions);
        }
    }

    /// Joins anew.
    fn restart(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.forget();
        self.state = State::Dialling;
        actions.push(Action::Forget);
        self.dial_later(now, actions);
    }

    fn forget(&mut self) {
        self.granted = None;
        self.held = Position::BOOT;
        self.strayed = false;
        self.attempts = 0;
    }

    fn dial_later(&self, now: Duration, actions: &mut Vec<Action>) {
        actions.push(Action::Dial(now + self.timing.redial));
    }
}

#[cfg(test)]
mod tests;
