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
mod tests {
    use echovisor_event::{NodeId, Term, VmId};
    use echovisor_log::arbiter::Mode;

    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    fn step(protocol: &mut Protocol, now: u64, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        protocol.step(at(now), input, &mut actions);
        actions
    }

    fn following() -> Protocol {
        let mut protocol = Protocol::new(Timing::default());
        step(&mut protocol, 0, Input::Connected(false));
        assert_eq!(step(&mut protocol, 1, Input::Loaded), [Action::SayReady]);
        protocol
    }

    fn eligible() -> Protocol {
        let mut protocol = following();
        step(&mut protocol, 2, Input::Granted(Position(10)));
        step(&mut protocol, 3, Input::Held(Position(10)));
        assert!(protocol.is_eligible());
        protocol
    }

    fn record() -> Record {
        Record { vm: VmId([0; 16]), term: Term(2), holder: NodeId([2; 16]), mode: Mode::Solo }
    }

    #[test]
    fn a_grant_counts_from_what_has_left_the_primary() {
        let mut protocol = following();
        step(&mut protocol, 2, Input::Granted(Position(10)));
        step(&mut protocol, 3, Input::Held(Position(9)));
        assert!(!protocol.is_eligible());
    }

    #[test]
    fn who_is_not_eligible_never_asks_for_the_guest() {
        let mut protocol = following();
        let actions = step(&mut protocol, 900, Input::Tick);
        assert!(!actions.contains(&Action::AskArbiter));
        assert!(actions.contains(&Action::Forget));
    }

    #[test]
    fn a_closed_link_is_no_death() {
        let mut protocol = eligible();
        assert_eq!(step(&mut protocol, 5, Input::LinkLost), [Action::Dial(at(5))]);
        assert_eq!(step(&mut protocol, 6, Input::Connected(true)), []);
        assert!(protocol.is_eligible());
        assert_eq!(protocol.state(), State::Following);
    }

    #[test]
    fn a_primary_that_does_not_answer_is_replaced_only_by_the_arbiter() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::LinkLost);
        assert_eq!(step(&mut protocol, 6, Input::Unreachable), [Action::AskArbiter]);
        assert_eq!(step(&mut protocol, 9, Input::Won(record())), [Action::Promote(record())]);
    }

    #[test]
    fn a_primary_that_gives_no_answer_is_suspected_after_its_time() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::LinkLost);
        assert_eq!(step(&mut protocol, 100, Input::NoAnswer), [Action::Dial(at(110))]);
        assert_eq!(step(&mut protocol, 503, Input::NoAnswer), [Action::AskArbiter]);
    }

    #[test]
    fn who_is_refused_while_the_arbiter_has_not_spoken_keeps_what_it_holds() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::LinkLost);
        assert_eq!(step(&mut protocol, 6, Input::Refused), [Action::Dial(at(206))]);
        assert!(protocol.is_eligible());
        assert_eq!(step(&mut protocol, 206, Input::Unreachable), [Action::AskArbiter]);
    }

    #[test]
    fn a_silent_primary_is_suspected_after_its_time() {
        let mut protocol = eligible();
        assert_eq!(step(&mut protocol, 502, Input::Tick), []);
        assert_eq!(step(&mut protocol, 503, Input::Tick), [Action::CloseLink, Action::AskArbiter]);
    }

    #[test]
    fn who_loses_at_the_arbiter_forgets_and_joins_anew() {
        let mut protocol = eligible();
        step(&mut protocol, 600, Input::Tick);
        let actions = step(&mut protocol, 601, Input::Lost);
        assert!(actions.contains(&Action::Forget));
        assert!(!protocol.is_eligible());
        assert_eq!(protocol.state(), State::Dialling);
    }

    #[test]
    fn a_divergence_ends_eligibility_at_once() {
        let mut protocol = eligible();
        assert_eq!(step(&mut protocol, 5, Input::Diverged), [], "the primary gives it another state");
        assert!(!protocol.is_eligible());
        step(&mut protocol, 6, Input::Announced);
        step(&mut protocol, 7, Input::Granted(Position(10)));
        assert_eq!(step(&mut protocol, 8, Input::Loaded), [Action::SayReady]);
        assert!(!protocol.is_eligible(), "what was granted before counts no more");
    }

    #[test]
    fn who_has_diverged_when_the_primary_dies_goes_back_first() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::Diverged);
        step(&mut protocol, 6, Input::Held(Position(20)));
        assert_eq!(step(&mut protocol, 7, Input::LinkLost), [Action::GoBack, Action::Dial(at(7))]);
        assert_eq!(
            step(&mut protocol, 8, Input::Unreachable),
            [Action::Dial(at(18))],
            "not before it is back"
        );
        assert!(!protocol.is_eligible());
        assert_eq!(step(&mut protocol, 15, Input::WentBack), []);
        assert_eq!(step(&mut protocol, 18, Input::Unreachable), [Action::AskArbiter]);
    }

    #[test]
    fn who_has_diverged_and_hears_no_more_of_the_primary_goes_back() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::Diverged);
        assert_eq!(protocol.wake_at(), Some(at(505)));
        let actions = step(&mut protocol, 505, Input::Tick);
        assert_eq!(actions, [Action::CloseLink, Action::GoBack, Action::Dial(at(505))]);
    }

    #[test]
    fn who_is_given_another_state_does_not_go_back() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::Diverged);
        step(&mut protocol, 6, Input::Announced);
        let actions = step(&mut protocol, 7, Input::LinkLost);
        assert!(actions.contains(&Action::Forget) && !actions.contains(&Action::GoBack), "{actions:?}");
    }

    #[test]
    fn who_diverges_without_a_link_goes_back_a_few_times() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::LinkLost);
        for _ in 0..ATTEMPTS {
            assert_eq!(step(&mut protocol, 6, Input::Diverged), [Action::GoBack, Action::Dial(at(6))]);
        }
        step(&mut protocol, 7, Input::WentBack);
        assert!(protocol.is_eligible());
        assert!(step(&mut protocol, 8, Input::Diverged).contains(&Action::Forget));
        assert!(!protocol.is_eligible());
    }

    #[test]
    fn who_went_back_and_finds_the_primary_goes_on() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::LinkLost);
        step(&mut protocol, 6, Input::Diverged);
        step(&mut protocol, 7, Input::WentBack);
        assert_eq!(step(&mut protocol, 8, Input::Connected(true)), []);
        assert!(protocol.is_eligible());
        assert_eq!(protocol.state(), State::Following);
    }

    #[test]
    fn who_cannot_go_back_joins_anew() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::Diverged);
        step(&mut protocol, 6, Input::LinkLost);
        assert!(step(&mut protocol, 7, Input::Unfit).contains(&Action::Forget));
    }

    #[test]
    fn what_is_of_no_use_ends_the_link() {
        let mut protocol = eligible();
        let actions = step(&mut protocol, 5, Input::Unfit);
        assert!(actions.starts_with(&[Action::CloseLink]));
        assert!(!protocol.is_eligible());
    }

    #[test]
    fn a_primary_that_went_on_alone_is_joined_anew() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::LinkLost);
        assert_eq!(step(&mut protocol, 6, Input::Connected(false)), [Action::Forget]);
        assert!(!protocol.is_eligible());
        assert_eq!(protocol.state(), State::Loading);
    }

    #[test]
    fn who_is_handed_the_guest_asks_for_it_when_all_of_the_log_is_executed() {
        let mut protocol = eligible();
        assert_eq!(step(&mut protocol, 5, Input::HandedOver), []);
        assert_eq!(protocol.state(), State::Receiving);
        assert_eq!(step(&mut protocol, 100, Input::Executed), [Action::AskArbiter]);
        assert_eq!(step(&mut protocol, 110, Input::Won(record())), [Action::Promote(record())]);
    }

    #[test]
    fn who_is_handed_a_guest_and_loses_the_link_holds_it_all_the_same() {
        let mut protocol = eligible();
        step(&mut protocol, 5, Input::HandedOver);
        assert_eq!(step(&mut protocol, 6, Input::LinkLost), [Action::Dial(at(6))]);
        assert_eq!(step(&mut protocol, 7, Input::Unreachable), [Action::AskArbiter]);
    }

    #[test]
    fn who_is_not_eligible_is_handed_nothing() {
        let mut protocol = following();
        assert!(step(&mut protocol, 5, Input::HandedOver).contains(&Action::Forget));
        assert_eq!(protocol.state(), State::Dialling);
    }

    #[test]
    fn a_shutdown_is_no_death() {
        let mut protocol = eligible();
        assert_eq!(step(&mut protocol, 5, Input::Goodbye), []);
        assert_eq!(protocol.state(), State::Ended);
        assert_eq!(step(&mut protocol, 6, Input::LinkLost), []);
    }
}
