//! The node's loop: moves messages, fires timers, and does what the protocol says.

use std::{
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use echovisor_event::{Digest, NodeId, Position, Term, VmId};
use echovisor_log::{
    arbiter::{Arbiter, CasOutcome, Record, rules},
    link::{
        Ack, Address, Diverged, Fingerprint, Hello, Link, LinkError, Message, Plaintext, Ready, Receiver,
        RefuseCode, Sender, Traffic, Welcome, boot_time, dial, flush_or_wait, greet, receive_or_wait,
    },
};
use echovisor_machine::{MachineConfig, cpu::Cpu};
use tokio::sync::oneshot;

use super::{
    guest::{Followed, Guest, Loaded, MakeCpu},
    inbox::{Inbox, Received, Unfit},
    protocol::{Action, Input, Protocol, State, Timing},
    takeover::{self, Answer, Promotion, Times},
};
use crate::{FollowError, Reached, Witness};

/// How often the primary hears how far the execution is, while that changes and nothing else is to be said.
const PROGRESS: Duration = Duration::from_millis(20);

/// How long saying why the link is closed may take.
const COURTESY: Duration = Duration::from_secs(1);

/// How long to wait for the replaying thread to make room.
const ROOM: Duration = Duration::from_millis(1);

/// What a secondary works with.
pub struct Settings<C> {
    /// This node.
    pub me: NodeId,
    /// Where the primary listens.
    pub join: Address,
    /// Whether the link may leave this host unencrypted.
    pub plaintext: Plaintext,
    /// This host.
    pub fingerprint: Fingerprint,
    /// Who decides which node runs the guest; without one this node never takes over.
    pub arbiter: Option<Arc<dyn Arbiter>>,
    /// How long things take.
    pub timing: Timing,
    /// Makes the guest's processor.
    pub cpu: MakeCpu<C>,
}

/// What the outside asks of a node.
pub enum Command {
    /// How are you?
    Status(oneshot::Sender<Status>),
    /// End this node; the guest goes on without it.
    Stop(oneshot::Sender<()>),
}

/// A secondary's state, for `status`.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How many takeovers there have been.
    pub term: Term,
    /// Where the replaying guest stands.
    pub position: Position,
    /// The log is held up to here.
    pub watermark: Position,
    /// Whether this node may take over.
    pub eligible: bool,
    /// What it is doing, in a word or two.
    pub mode: String,
    /// The last checkpoint, which was equal.
    pub last_checkpoint: Option<(Position, Digest)>,
    /// Checkpoints compared.
    pub checkpoints: u64,
    /// How often the guest took another course than the log.
    pub divergences: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes on the link, both directions.
    pub link_bytes: u64,
}

/// How a node's work ended.
pub enum Outcome<C> {
    /// This node is the primary now.
    Promoted(Box<Promotion<C>>),
    /// The guest has ended.
    Ended(String),
    /// This node was stopped.
    Stopped,
}

/// Why a node could not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The primary will never want this node, or cannot be talked to.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The replaying guest failed at the moment of the takeover.
    #[error("the guest cannot go live: {0}")]
    Follow(#[from] FollowError<Infallible>),
    /// The replaying thread ended without a word.
    #[error("the replaying thread died")]
    GuestDied,
    /// The host has no thread left.
    #[error("cannot start the replaying thread: {0}")]
    Thread(std::io::Error),
}

/// A node that follows a primary.
pub struct Node<C> {
    settings: Settings<C>,
    protocol: Protocol,
    sender: Option<Sender>,
    receiver: Option<Receiver>,
    traffic: Option<Arc<Traffic>>,
    inbox: Inbox,
    guest: Option<Guest<C>>,
    /// The guest came to its own end, or left the log's course while the arbiter was asked.
    followed: Option<Following<C>>,
    config: Option<MachineConfig>,
    /// What comes of the last dialling; of earlier ones nobody wants to know.
    dialled: Option<oneshot::Receiver<Dialled>>,
    answers: (flume::Sender<Answer>, flume::Receiver<Answer>),
    vm: Option<VmId>,
    /// That the primary is not there has been said.
    waiting: bool,
    /// The stamp of the last heartbeat.
    echo: u64,
    /// The execution as the primary was told last, and when.
    told: (Position, Instant),
    status: Status,
    /// Bytes of links that are gone.
    carried: u64,
    /// How long the primary had been silent when it was suspected, and when that was.
    suspected: Option<(Duration, Instant)>,
    promoted: Option<Record>,
    outcome: Option<Outcome<C>>,
}

/// What became of following.
type Following<C> = Result<Followed<C>, FollowError<Infallible>>;

/// What became of dialling.
type Dialled = Result<(Link, Welcome), LinkError>;

/// What the loop woke up for.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is used at once")]
enum Event<C> {
    Received(Result<Received, Unfit>),
    LinkError(LinkError),
    Flushed,
    Dialled(Dialled),
    Answer(Answer),
    Loaded(Result<Loaded, String>),
    GuestEnded(Option<Following<C>>),
    Command(Command),
    Progress,
    Full,
    Tick,
}

impl<C: Cpu + Send + 'static> Node<C> {
    /// A node that holds nothing.
    #[must_use]
    pub fn new(settings: Settings<C>) -> Node<C> {
        Node {
            protocol: Protocol::new(settings.timing),
            settings,
            sender: None,
            receiver: None,
            traffic: None,
            inbox: Inbox::default(),
            guest: None,
            followed: None,
            config: None,
            dialled: None,
            answers: flume::bounded(1),
            vm: None,
            waiting: false,
            echo: 0,
            told: (Position::BOOT, Instant::now()),
            status: Status::default(),
            carried: 0,
            suspected: None,
            promoted: None,
            outcome: None,
        }
    }

    /// Follows until this node is the primary, the guest has ended, or the node is stopped.
    ///
    /// # Errors
    /// If the primary will never want this node, or the guest cannot go live.
    pub async fn run(mut self, commands: &flume::Receiver<Command>) -> Result<Outcome<C>, NodeError> {
        let mut actions = Vec::new();
        self.protocol.begin(boot_time(), &mut actions);
        self.act(actions)?;
        loop {
            if let Some(outcome) = self.outcome.take() {
                return Ok(outcome);
            }
            if let Some(record) = self.promoted.take() {
                return self.promote(record).await;
            }
            let event = self.wait(commands).await;
            self.handle(event)?;
        }
    }

    async fn wait(&mut self, commands: &flume::Receiver<Command>) -> Event<C> {
        let now = boot_time();
        let sleep = self.protocol.wake_at().map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
        let executed = self.guest.as_ref().map(|guest| guest.progress.executed());
        let untold = executed.is_some_and(|executed| executed != self.told.0) && self.sender.is_some();
        let progress = (self.told.1 + PROGRESS).saturating_duration_since(Instant::now());
        // The primary is told to wait long before this; it must not be taken for silent while nobody listens.
        let full = self.guest.as_ref().is_some_and(|guest| guest.batches.is_full());
        let (loaded, ended, spare) = match &mut self.guest {
            Some(guest) => (guest.loaded.as_mut(), Some(&mut guest.ended), Some(&guest.spare)),
            None => (None, None, None),
        };
        // Answers go out before more is read, unless more is here already: then one answer serves for all of it.
        let settled = self.receiver.as_ref().is_none_or(|receiver| !receiver.has_message());
        let inbox = &mut self.inbox;
        tokio::select! {
            biased;
            ended = told(ended), if self.followed.is_none() => Event::GuestEnded(ended),
            flushed = flush_or_wait(self.sender.as_mut()), if settled || full => {
                flushed.map_or_else(Event::LinkError, |()| Event::Flushed)
            }
            message = receive_or_wait(self.receiver.as_mut()), if !full => match message {
                Ok(message) => Event::Received(inbox.take(message, spare)),
                Err(error) => Event::LinkError(error),
            },
            Some(dialled) = told(self.dialled.as_mut()) => Event::Dialled(dialled),
            Ok(answer) = self.answers.1.recv_async() => Event::Answer(answer),
            loaded = told(loaded) => Event::Loaded(loaded.unwrap_or_else(|| Err("the thread died".into()))),
            Ok(command) = commands.recv_async() => Event::Command(command),
            () = tokio::time::sleep(progress), if untold => Event::Progress,
            () = tokio::time::sleep(ROOM), if full => Event::Full,
            () = tokio::time::sleep(sleep) => Event::Tick,
        }
    }

    fn handle(&mut self, event: Event<C>) -> Result<(), NodeError> {
        match event {
            Event::Received(Ok(received)) => self.received(received),
            Event::Received(Err(unfit)) => {
                tracing::error!("the primary's log cannot be followed: {unfit}");
                // What is held is good, but nothing can be added to it.
                self.input(Input::Diverged)
            }
            Event::LinkError(error) => {
                tracing::warn!("the link to the primary is lost: {error}");
                self.close_link();
                self.input(Input::LinkLost)
            }
            Event::Flushed => Ok(()),
            Event::Dialled(dialled) => self.dialled(dialled),
            Event::Answer(Answer::Won(record)) => self.input(Input::Won(record)),
            Event::Answer(Answer::Lost) => self.input(Input::Lost),
            Event::Answer(Answer::Ended) => {
                self.outcome = Some(Outcome::Ended("the guest was shut down".to_owned()));
                self.input(Input::Goodbye)
            }
            Event::Loaded(loaded) => self.loaded(loaded),
            Event::GuestEnded(None) => Err(NodeError::GuestDied),
            Event::GuestEnded(Some(Ok(followed))) => {
                self.followed = Some(Ok(followed));
                Ok(())
            }
            // The answer may make this node the only one that could run the guest: then it must say that it cannot.
            Event::GuestEnded(Some(Err(error))) if self.protocol.state() == State::TakingOver => {
                self.followed = Some(Err(error));
                Ok(())
            }
            Event::GuestEnded(Some(Err(error))) => {
                tracing::error!("divergence: {error}");
                self.status.divergences += 1;
                self.say_diverged(&error);
                self.input(Input::Diverged)
            }
            Event::Command(Command::Status(reply)) => {
                // Who asked may be gone.
                let _ = reply.send(self.status());
                Ok(())
            }
            Event::Command(Command::Stop(reply)) => {
                let _ = reply.send(());
                self.outcome = Some(Outcome::Stopped);
                Ok(())
            }
            Event::Progress => {
                self.acknowledge();
                Ok(())
            }
            Event::Full => self.input(Input::Heard),
            Event::Tick => self.input(Input::Tick),
        }
    }

    fn received(&mut self, received: Received) -> Result<(), NodeError> {
        self.input(Input::Heard)?;
        match received {
            Received::Nothing => {
                // A state takes its time, and who is silent so long is given up.
                self.acknowledge();
                Ok(())
            }
            Received::Image(begin, bytes) => {
                tracing::info!("loading the state at position {}", begin.position);
                self.guest = Some(Guest::start(begin, bytes, self.settings.cpu).map_err(NodeError::Thread)?);
                Ok(())
            }
            Received::Batch(arrived) => {
                self.status.watermark = arrived.mark.watermark;
                if let Some(guest) = &self.guest {
                    // A thread that has ended says why elsewhere.
                    let _ = guest.batches.try_send(arrived);
                }
                self.acknowledge();
                self.input(Input::Held(self.inbox.held()))
            }
            Received::Grant(position) => {
                tracing::info!("this node may take over from position {position}");
                self.input(Input::Granted(position))
            }
            Received::Heartbeat(heartbeat) => {
                self.echo = heartbeat.stamp;
                if let Some(guest) = &self.guest {
                    guest.progress.release(heartbeat.released);
                }
                self.acknowledge();
                Ok(())
            }
            Received::Bye(text) => {
                self.outcome = Some(Outcome::Ended(text));
                self.input(Input::Goodbye)
            }
        }
    }

    /// Tells the primary what is held here and how far the execution is.
    fn acknowledge(&mut self) {
        let executed = self.guest.as_ref().map_or(Position::BOOT, |guest| guest.progress.executed());
        let sequence = self.inbox.place().map_or(0, |place| place.sequence);
        self.told = (executed, Instant::now());
        self.send(&Message::Ack(Ack { sequence, executed, echo: self.echo, durable: false }));
    }

    fn send(&mut self, message: &Message<'_>) {
        if let Some(sender) = &mut self.sender
            && let Err(error) = sender.queue(message)
        {
            tracing::error!("a message was not sent: {error}");
        }
    }

    fn loaded(&mut self, loaded: Result<Loaded, String>) -> Result<(), NodeError> {
        if let Some(guest) = &mut self.guest {
            guest.loaded = None;
        }
        match loaded {
            Ok(loaded) => {
                self.config = Some(loaded.config);
                self.status.last_checkpoint = None;
                self.input(Input::Loaded)?;
                self.input(Input::Held(self.inbox.held()))
            }
            Err(error) => {
                tracing::error!("the primary's state cannot be loaded: {error}");
                self.input(Input::Diverged)
            }
        }
    }

    fn dialled(&mut self, dialled: Dialled) -> Result<(), NodeError> {
        self.dialled = None;
        match dialled {
            Ok((link, welcome)) => {
                self.vm = Some(welcome.vm);
                self.waiting = false;
                self.status.term = welcome.term;
                self.close_link();
                self.traffic = Some(link.traffic());
                self.sender = Some(link.sender);
                self.receiver = Some(link.receiver);
                self.input(Input::Connected(welcome.resumed))
            }
            Err(error) if is_final(&error) && !self.protocol.is_eligible() => Err(error.into()),
            Err(error @ LinkError::Refused { .. }) => {
                tracing::info!("{error}");
                self.input(Input::Refused)
            }
            Err(error) if !nobody_listens(&error) && self.protocol.state() == State::Redialling => {
                tracing::warn!("{error}");
                self.input(Input::NoAnswer)
            }
            Err(error) => {
                // Once is enough: a secondary may wait for its primary for days.
                if !std::mem::replace(&mut self.waiting, true) {
                    tracing::warn!("{error}; dialling on");
                }
                self.input(Input::Unreachable)
            }
        }
    }

    /// Lets the protocol decide, and does what it says.
    fn input(&mut self, input: Input) -> Result<(), NodeError> {
        let mut actions = Vec::new();
        self.protocol.step(boot_time(), input, &mut actions);
        self.act(actions)
    }

    fn act(&mut self, actions: Vec<Action>) -> Result<(), NodeError> {
        for action in actions {
            match action {
                Action::Dial(at) => self.dial(at),
                Action::CloseLink => self.close_link(),
                Action::SayReady => {
                    let guest =
                        self.guest.as_ref().map(|guest| (guest.announced.position, guest.announced.digest));
                    if let Some((position, digest)) = guest {
                        self.send(&Message::Ready(Ready { position, digest }));
                    }
                }
                Action::Forget => {
                    self.guest = None;
                    self.followed = None;
                    self.inbox = Inbox::default();
                }
                Action::AskArbiter => self.ask_arbiter(),
                Action::Promote(record) => self.promoted = Some(record),
            }
        }
        Ok(())
    }

    fn dial(&mut self, at: Duration) {
        let wait = at.saturating_sub(boot_time());
        let timeout = self.settings.timing.suspicion;
        let (join, plaintext) = (self.settings.join.clone(), self.settings.plaintext);
        let resume = self.protocol.is_eligible().then(|| self.inbox.place()).flatten();
        let (me, fingerprint) = (self.settings.me, self.settings.fingerprint.clone());
        let suspicion_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let hello = Hello {
            vm: self.vm,
            term: self.status.term,
            resume,
            suspicion_ms,
            ..Hello::new(me, fingerprint)
        };
        let (answer, dialled) = oneshot::channel();
        self.dialled = Some(dialled);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let dialling = async {
                let mut link = dial(&join, plaintext, timeout).await?;
                let welcome = greet(&mut link, &hello, timeout).await?;
                Ok((link, welcome))
            };
            // Nobody to hear it means that the node is ending, or dials anew.
            let _ = answer.send(dialling.await);
        });
    }

    fn ask_arbiter(&mut self) {
        let silence = boot_time().saturating_sub(self.protocol.heard());
        self.suspected = Some((silence, Instant::now()));
        tracing::warn!("the primary is gone: asking the arbiter for the guest");
        match &self.settings.arbiter {
            Some(arbiter) => takeover::ask(arbiter.clone(), self.settings.me, self.answers.0.clone()),
            // Without an arbiter nobody may go live.
            None => drop(self.answers.0.try_send(Answer::Lost)),
        }
    }

    fn close_link(&mut self) {
        if let Some(mut sender) = self.sender.take().filter(|sender| sender.queued() > 0) {
            // The last words may say why.
            tokio::spawn(async move { tokio::time::timeout(COURTESY, sender.flush()).await });
        }
        self.receiver = None;
        if let Some(traffic) = self.traffic.take() {
            self.carried += traffic.sent() + traffic.received();
        }
    }

    fn say_diverged(&mut self, error: &FollowError<Infallible>) {
        let position = self.guest.as_ref().map_or(Position::BOOT, |guest| guest.progress.executed());
        self.send(&Message::Diverged(Diverged { position, text: error.to_string() }));
    }

    /// Executes what is left of the log, and hands the guest over.
    async fn promote(mut self, record: Record) -> Result<Outcome<C>, NodeError> {
        let answered = Instant::now();
        let guest = self.guest.take().ok_or(NodeError::GuestDied)?;
        let config = self.config.take().ok_or(NodeError::GuestDied)?;
        drop(guest.batches);
        let followed = match self.followed.take() {
            Some(followed) => followed?,
            None => guest.ended.await.map_err(|_| NodeError::GuestDied)??,
        };
        let (suspicion, suspected) = self.suspected.unwrap_or((Duration::ZERO, answered));
        let times = Times { suspicion, arbiter: answered - suspected, replay: answered.elapsed() };
        let Followed { machine, mut unconfirmed, clock, reached } = followed;
        if let Reached::Stopped = reached {
            // The operator's stop was in the log, but the primary died before it was on record.
            self.end(record).await;
            return Ok(Outcome::Ended("the guest was stopped".to_owned()));
        }
        unconfirmed.released(guest.progress.released());
        Ok(Outcome::Promoted(Box::new(Promotion { machine, config, record, unconfirmed, clock, times })))
    }

    /// Puts on record that the guest was shut down.
    async fn end(&self, record: Record) {
        let (Some(arbiter), me) = (self.settings.arbiter.clone(), self.settings.me) else { return };
        let ended = tokio::task::spawn_blocking(move || {
            let new = rules::end(Some(&record), me).ok()?;
            arbiter.compare_and_set(Some(&record), &new).ok()
        });
        if !matches!(ended.await, Ok(Some(CasOutcome::Won))) {
            tracing::warn!("the guest was stopped, but that is not on the arbiter's record");
        }
    }

    fn status(&self) -> Status {
        let carried = self.traffic.as_ref().map_or(0, |traffic| traffic.sent() + traffic.received());
        let progress = self.guest.as_ref().map(|guest| &guest.progress);
        Status {
            position: progress.map_or(Position::BOOT, |progress| progress.executed()),
            eligible: self.protocol.is_eligible(),
            mode: mode(self.protocol.state()).to_owned(),
            last_checkpoint: progress.and_then(|progress| progress.last_checkpoint()),
            checkpoints: progress.map_or(0, |progress| progress.checkpoints()),
            log_bytes: self.inbox.log_bytes(),
            link_bytes: self.carried + carried,
            ..self.status.clone()
        }
    }
}

/// Whether dialling again could only give the same answer.
fn is_final(error: &LinkError) -> bool {
    use RefuseCode::{Fingerprint, Version, WrongVm};
    match error {
        LinkError::Address { .. } | LinkError::Plaintext { .. } => true,
        LinkError::WrongVm { .. } | LinkError::Fingerprint { .. } => true,
        LinkError::Refused { code, .. } => matches!(code, Fingerprint | Version | WrongVm),
        _ => false,
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
        State::Redialling => "redialling",
        State::TakingOver => "taking over",
        State::Promoted => "promoted",
        State::Ended => "ended",
    }
}

/// What another thread tells, or `None` if it died; waits for ever where none will.
async fn told<T>(from: Option<&mut oneshot::Receiver<T>>) -> Option<T> {
    match from {
        Some(from) => from.await.ok(),
        None => pending().await,
    }
}
