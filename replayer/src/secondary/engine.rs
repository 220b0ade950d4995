//! Everything that a secondary decides: the protocol, what it holds of the log, and what it acknowledges.
//!
//! There is no socket, clock or task in here. Messages, answers and the time come in, messages are queued and
//! [`Order`]s go out; the node around it, or a simulator, moves bytes, replays batches and fires timers.

mod joining;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use echovisor_event::{Digest, NodeId, Position, VmId};
use echovisor_log::{
    Pool,
    arbiter::{Answer, Mode, Question, Record},
    link::{
        Ack, Address, Diverged, Fingerprint, HandOver, Hello, LinkError, Message, Ready, Resume, Sender,
        Welcome,
    },
};
use echovisor_machine::{MachineConfig, boot::Symbols};

use super::{
    base::Base,
    inbox::{Inbox, Received, Unfit},
    protocol::{Action, Input, Protocol, State, Timing},
    report::Report,
    status::Status,
    syncing::{Fetched, Syncing},
};
use crate::{Arrived, Progress};

/// How often the primary hears how far the execution is, while that changes and nothing else is to be said.
const PROGRESS: Duration = Duration::from_millis(20);

/// How often to look whether the log is executed, when the guest stands still until it is.
const LOOK: Duration = Duration::from_millis(1);

/// What the engine wants of its surroundings.
pub enum Order {
    /// Connect to the primary at this time and say hello; hand the outcome of the last such order to [`Engine::connected`] or
    /// [`Engine::not_connected`].
    Dial(Duration, Hello),
    /// Write what is queued, and close the link.
    HangUp(Sender),
    /// Let the machine, if there is one, execute what there is of its log, and hand its memory to [`Engine::prepared`]; or a new
    /// one, if there is none of this size in bytes.
    Prepare(u64),
    /// Make a machine of this state, tell [`Engine::loaded`], and let it follow the log from there.
    Load(Box<Fetched>, Arc<Progress>),
    /// The log goes on.
    Append(Arrived),
    /// Let the machine go back to its last verified state and execute again what is held of the log, and tell
    /// [`Engine::went_back`].
    GoBack,
    /// Give up machine and log. Its memory may be of use when the next state comes.
    Forget,
    /// Ask the arbiter, and hand its answer to [`Engine::answered`].
    Ask(Question),
    /// Execute the rest of the log, then go live as this record says.
    Promote(Record),
    /// The primary does not hand the guest over, and why.
    Keep(String),
    /// The guest has ended, and why.
    End(String),
}

/// The secondary, without its surroundings.
pub struct Engine {
    me: NodeId,
    fingerprint: Fingerprint,
    suspicion: Duration,
    protocol: Protocol,
    sender: Option<Sender>,
    inbox: Inbox,
    syncing: Syncing,
    /// What has come of a state whose walk was broken off.
    base: Option<Base>,
    /// Where and how it was found that this node's state is not the primary's, until it is healed.
    noticed: Option<(Position, String)>,
    /// The state that was given to this node.
    announced: Option<(Position, Digest)>,
    /// How far the machine is.
    progress: Arc<Progress>,
    vm: Option<VmId>,
    /// Where this node listens when it runs the guest.
    listens: Option<Address>,
    /// Finds names for a guest's addresses.
    symbols: fn(&MachineConfig) -> Symbols,
    /// The report of a divergence that was healed, until it was taken.
    report: Option<Arc<Report>>,
    /// Where the log ends, once the guest is handed over, and when to look again whether that is reached.
    handed: Option<(HandOver, Duration)>,
    /// The primary was asked for the guest, and has not answered.
    wanted: bool,
    /// Why there is no link, as it was said last.
    waiting: Option<String>,
    /// The stamp of the last heartbeat.
    echo: u64,
    /// The execution as the primary was told last, and when.
    told: (Position, Duration),
    status: Status,
    orders: VecDeque<Order>,
}

impl Engine {
    /// A secondary that holds nothing. Call [`Engine::begin`].
    #[must_use]
    pub fn new(me: NodeId, fingerprint: Fingerprint, timing: Timing) -> Engine {
        Engine {
            me,
            fingerprint,
            suspicion: timing.suspicion,
            protocol: Protocol::new(timing),
            sender: None,
            inbox: Inbox::default(),
            syncing: Syncing::Nothing,
            base: None,
            noticed: None,
            announced: None,
            progress: Arc::default(),
            vm: None,
            listens: None,
            symbols: |_| Symbols::default(),
            report: None,
            handed: None,
            wanted: false,
            waiting: None,
            echo: 0,
            told: (Position::BOOT, Duration::ZERO),
            status: Status::default(),
            orders: VecDeque::new(),
        }
    }

    /// Joins no other guest than this.
    #[must_use]
    pub fn of(mut self, vm: VmId) -> Engine {
        self.vm = Some(vm);
        self
    }

    /// Joins no other guest than that of `record`, and nobody who has run it in an earlier term.
    #[must_use]
    pub fn knowing(mut self, record: &Record) -> Engine {
        self.vm = Some(record.vm);
        self.status.term = record.term;
        self
    }

    /// Tells the primary where this node will listen when it runs the guest.
    #[must_use]
    pub fn listening(mut self, at: Option<Address>) -> Engine {
        self.listens = at;
        self
    }

    /// Names a guest's addresses in reports by what this finds for it.
    #[must_use]
    pub fn naming(mut self, symbols: fn(&MachineConfig) -> Symbols) -> Engine {
        self.symbols = symbols;
        self
    }

    /// The report of a divergence that was healed since this was asked last.
    pub fn take_report(&mut self) -> Option<Arc<Report>> {
        self.report.take()
    }

    /// What is to be done next; ask after each call until there is nothing.
    pub fn order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When to call [`Engine::tick`], if nothing else is called before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let look = self.handed.filter(|_| self.state() == State::Receiving).map(|(_, at)| at);
        [self.protocol.wake_at(), self.speak_at(), look].into_iter().flatten().min()
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.protocol.state()
    }

    /// Whether it may take over.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.protocol.is_eligible()
    }

    /// Whether it could take over if its guest had not left the log's course, and can go back.
    #[must_use]
    pub fn may_go_back(&self) -> bool {
        self.protocol.may_go_back() || self.protocol.is_going_back()
    }

    /// The log is held up to this watermark.
    #[must_use]
    pub fn held(&self) -> Position {
        self.inbox.held()
    }

    /// How long the primary has been silent.
    #[must_use]
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.protocol.heard())
    }

    /// Where what is queued waits to be written; `None` while there is no link. The link's other half must be dropped then.
    pub fn sender(&mut self) -> Option<&mut Sender> {
        self.sender.as_mut()
    }

    /// Begins: dials.
    pub fn begin(&mut self, now: Duration) {
        let mut actions = Vec::new();
        self.protocol.begin(now, &mut actions);
        self.act(actions);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        if self.speak_at().is_some_and(|at| now >= at) {
            self.acknowledge(now);
        }
        self.input(now, Input::Tick);
        self.look_whether_executed(now);
    }

    /// At this time something came in, be it only a part of a message. Say so before [`Engine::tick`].
    pub fn heard_at(&mut self, at: Duration) {
        self.protocol.heard_at(at);
    }

    /// The operator wants this node to become the primary, which asks the present one for the guest. Ends in
    /// [`Order::Promote`], or in [`Order::Keep`].
    ///
    /// # Errors
    /// If that is not possible now, and why.
    pub fn promote(&mut self) -> Result<(), &'static str> {
        match self.state() {
            State::Following if self.is_eligible() => {
                if !std::mem::replace(&mut self.wanted, true) {
                    self.send(&Message::Promote);
                }
                Ok(())
            }
            State::Receiving | State::TakingOver | State::Promoted => Ok(()),
            State::Following | State::Loading => Err("this node is still joining"),
            State::Dialling => Err("this node has no primary"),
            State::Redialling => Err("the link to the primary is lost"),
            State::Ended => Err("the guest has ended"),
        }
    }

    /// The guest is asked for at the arbiter only when it is known to be the same, and there is nothing left to do.
    fn look_whether_executed(&mut self, now: Duration) {
        let State::Receiving = self.state() else { return };
        let Some((end, look_at)) = &mut self.handed else { return };
        *look_at = now + LOOK;
        if self.progress.last_checkpoint() == Some((end.position, end.digest)) {
            self.input(now, Input::Executed);
        }
    }

    /// Tells who wants this node to become the primary that it does not.
    fn keep(&mut self, why: &str) {
        if std::mem::take(&mut self.wanted) {
            self.orders.push_back(Order::Keep(why.to_owned()));
        }
    }

    /// The primary answered with a welcome; what is to be said to it goes to `sender`.
    pub fn connected(&mut self, now: Duration, sender: Sender, welcome: &Welcome) {
        self.vm = Some(welcome.vm);
        self.waiting = None;
        self.status.term = welcome.term;
        self.hang_up();
        self.sender = Some(sender);
        // What another primary's clock said means nothing to this one.
        self.echo = 0;
        if let Some(address) = &self.listens {
            self.send(&Message::Listens(address.to_string()));
        }
        self.input(now, Input::Connected(welcome.resumed));
    }

    /// Dialling gave no link.
    pub fn not_connected(&mut self, now: Duration, error: &LinkError) {
        let input = match error {
            LinkError::Refused { .. } => {
                tracing::info!("{error}");
                Input::Refused
            }
            error if !nobody_listens(error) && self.state() == State::Redialling => {
                tracing::warn!("{error}");
                Input::NoAnswer
            }
            error => {
                // Once is enough: a secondary may wait for its primary for days.
                let why = Some(error.to_string());
                if self.waiting != why {
                    self.waiting = why;
                    tracing::warn!("{error}; dialling on");
                }
                Input::Unreachable
            }
        };
        self.input(now, input);
    }

    /// The primary said something, which came in at the moment `at`. A batch's records go into one of `spare`, if there is
    /// any.
    pub fn message(&mut self, now: Duration, at: Instant, message: Message<'_>, spare: Option<&Pool>) {
        let received = match self.inbox.take(message, at, spare) {
            Ok(received) => received,
            Err(unfit) => return self.unfit(now, &unfit),
        };
        self.input(now, Input::Heard);
        match received {
            Received::Nothing => {}
            Received::State(begin) => self.announced(now, begin),
            Received::Part(part) => self.part(now, part),
            Received::Batch(arrived) => {
                self.status.watermark = arrived.mark.watermark;
                self.orders.push_back(Order::Append(arrived));
                self.acknowledge(now);
                self.input(now, Input::Held(self.inbox.held()));
            }
            Received::Grant(position) => {
                tracing::info!("this node may take over from position {position}");
                self.input(now, Input::Granted(position));
            }
            Received::Heartbeat(heartbeat) => {
                self.echo = heartbeat.stamp;
                self.progress.release(heartbeat.released);
                self.acknowledge(now);
            }
            Received::HandOver(end) => {
                tracing::info!("the primary hands the guest over at position {}", end.position);
                // It stands still because all that it has done has left.
                self.progress.release(end.position);
                self.handed = Some((end, now));
                self.input(now, Input::HandedOver);
                self.look_whether_executed(now);
            }
            Received::Keep(why) => {
                tracing::warn!("the primary keeps the guest: {why}");
                self.keep(&why);
            }
            Received::Bye(text) => {
                self.orders.push_back(Order::End(text));
                self.input(now, Input::Goodbye);
            }
        }
    }

    /// What came in is good up to here, but nothing can be added to it.
    fn unfit(&mut self, now: Duration, unfit: &Unfit) {
        tracing::error!("the primary cannot be followed: {unfit}");
        self.input(now, Input::Unfit);
    }

    /// Nothing can be taken from the link for now, so that its silence means nothing. The primary must not take this node for
    /// dead either.
    pub fn busy(&mut self, now: Duration) {
        if now >= self.told.1 + PROGRESS {
            self.acknowledge(now);
        }
        self.input(now, Input::Heard);
    }

    /// The link broke.
    pub fn link_lost(&mut self, now: Duration, why: &str) {
        tracing::warn!("the link to the primary is lost: {why}");
        self.hang_up();
        if self.state() != State::TakingOver {
            self.keep("the link to the primary is lost");
        }
        self.input(now, Input::LinkLost);
    }

    /// The machine left the log's course.
    pub fn diverged(&mut self, now: Duration, text: &str) {
        tracing::error!("divergence: {text}");
        self.status.divergences += 1;
        let position = self.progress.executed();
        self.noticed = Some((position, text.to_owned()));
        self.keep("its state is not the primary's");
        self.send(&Message::Diverged(Diverged { position, text: text.to_owned() }));
        self.input(now, Input::Diverged);
    }

    /// What came of [`Order::GoBack`].
    pub fn went_back(&mut self, now: Duration, result: Result<(), String>) {
        match result {
            Ok(()) => {
                tracing::warn!("all of the log is executed again, and the state is the primary's");
                self.noticed = None;
                self.input(now, Input::WentBack);
            }
            Err(error) => {
                tracing::error!("this node cannot go back to a verified state: {error}");
                self.input(now, Input::Unfit);
            }
        }
    }

    /// The arbiter has answered; `None` if there is none to ask.
    pub fn answered(&mut self, now: Duration, answer: Option<Answer>) {
        match answer {
            Some(Answer::Won(record)) => self.input(now, Input::Won(record)),
            Some(Answer::Lost(Record { mode: Mode::Ended, .. })) => {
                self.orders.push_back(Order::End("the guest was shut down".to_owned()));
                self.input(now, Input::Goodbye);
            }
            Some(Answer::Lost(record)) => {
                tracing::warn!(
                    "no takeover: node {} runs the guest in term {}, {:?}",
                    record.holder,
                    record.term,
                    record.mode
                );
                self.input(now, Input::Lost);
            }
            None => self.input(now, Input::Lost),
        }
    }

    /// Tells the primary what is held here and how far the execution is.
    fn acknowledge(&mut self, now: Duration) {
        let executed = self.progress.executed();
        let sequence = self.inbox.place().map_or(0, |place| place.sequence);
        self.told = (executed, now);
        self.send(&Message::Ack(Ack { sequence, executed, echo: self.echo, durable: false }));
    }

    /// When the primary is to be told something, if it asks nothing before: that the execution goes on, or at least that this node lives,
    /// while what the primary says is long in coming.
    fn speak_at(&self) -> Option<Duration> {
        self.sender.as_ref()?;
        if self.progress.executed() != self.told.0 {
            return Some(self.told.1 + PROGRESS);
        }
        matches!(self.state(), State::Following | State::Receiving).then(|| self.told.1 + self.suspicion / 2)
    }

    fn send(&mut self, message: &Message<'_>) {
        if let Some(sender) = &mut self.sender
            && let Err(error) = sender.queue(message)
        {
            tracing::error!("a message was not sent: {error}");
        }
    }

    fn hang_up(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.orders.push_back(Order::HangUp(sender));
        }
    }

    /// Lets the protocol decide, and does what it says.
    fn input(&mut self, now: Duration, input: Input) {
        let mut actions = Vec::new();
        self.protocol.step(now, input, &mut actions);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial(at) => self.orders.push_back(Order::Dial(at, self.hello())),
                Action::CloseLink => self.hang_up(),
                Action::SayReady => {
                    if let Some((position, digest)) = self.announced {
                        self.send(&Message::Ready(Ready { position, digest }));
                    }
                }
                Action::GoBack => self.orders.push_back(Order::GoBack),
                Action::Forget => {
                    self.handed = None;
                    self.keep("this node has to join anew");
                    self.inbox = Inbox::default();
                    self.announced = None;
                    if let Syncing::Walking(walking) = std::mem::replace(&mut self.syncing, Syncing::Nothing)
                    {
                        self.base = Some(walking.break_off());
                    }
                    self.progress = Arc::default();
                    self.orders.push_back(Order::Forget);
                }
                Action::AskArbiter => {
                    match self.handed {
                        Some(_) => {
                            tracing::info!("all of the log is executed: asking the arbiter for the guest")
                        }
                        None => tracing::warn!("the primary is gone: asking the arbiter for the guest"),
                    }
                    self.orders.push_back(Order::Ask(Question::TakeOver(self.me)));
                }
                Action::Promote(record) => {
                    // After a switchover somebody hears it.
                    self.send(&Message::Bye("it runs the guest now".to_owned()));
                    self.hang_up();
                    self.orders.push_back(Order::Promote(record));
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            vm: self.vm,
            term: self.status.term,
            resume: self.resume(),
            suspicion_ms: u64::try_from(self.suspicion.as_millis()).unwrap_or(u64::MAX),
            ..Hello::new(self.me, self.fingerprint.clone())
        }
    }

    /// Where to go on, if what is held here is worth it.
    fn resume(&self) -> Option<Resume> {
        self.is_eligible().then(|| self.inbox.place()).flatten()
    }

    /// How the secondary is, as far as the engine knows.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            position: self.progress.executed(),
            eligible: self.is_eligible(),
            mode: if self.protocol.is_going_back() { "going back" } else { mode(self.state()) }.to_owned(),
            last_checkpoint: self.progress.last_checkpoint(),
            checkpoints: self.progress.checkpoints(),
            log_bytes: self.inbox.log_bytes(),
            joining: match &self.syncing {
                Syncing::Walking(walking) => Some(walking.progress()),
                _ => None,
            },
            ..self.status.clone()
        }
    }
}

/// Whether the primary's host itself said that its process is gone.
fn nobody_listens(error: &LinkError) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error, LinkError::Dial { source, .. } if matches!(source.kind(), ConnectionRefused | NotFound))
}

fn mode(state: State) -> &'static str {
    match state {
        State::Dialling => "dialling",
        State::Loading => "loading",
        State::Following => "following",
        State::Receiving => "receiving",
        State::Redialling => "redialling",
        State::TakingOver => "taking over",
        State::Promoted => "promoted",
        State::Ended => "ended",
    }
}
