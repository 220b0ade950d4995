//! The node's loop: moves messages, fires timers, and does what the engine says.

use std::{
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use echovisor_event::{NodeId, VmId};
use echovisor_log::{
    arbiter::{self, Answer, Arbiter, ArbiterError, Question, Record, Silence, rules},
    link::{
        Address, Fingerprint, Hello, Keys, Link, LinkError, Receiver, RefuseCode, Sender, Traffic, Welcome,
        boot_time, dial, flush_at_once, flush_or_wait, greet, receive_or_wait,
    },
};
use echovisor_machine::{MachineConfig, boot::Symbols, cpu::Cpu};
use tokio::sync::oneshot;

use super::{
    base::Base,
    engine::{Engine, Order},
    guest::{Followed, Guest, Loaded, MakeCpu, News},
    protocol::{State, Timing},
    report::Report,
    status::Status,
    takeover::{Promotion, Times},
};
use crate::{FollowError, Reached, Spoil, Witness};

/// How long saying why the link is closed may take.
const COURTESY: Duration = Duration::from_secs(1);

/// How long to wait for the replaying thread to make room.
const ROOM: Duration = Duration::from_millis(1);

/// How long a guest that is given up may take to execute what there is of its log.
const RETIRE: Duration = Duration::from_secs(5);

/// What a secondary works with.
pub struct Settings<C> {
    /// This node.
    pub me: NodeId,
    /// Where the primary listens.
    pub join: Address,
    /// This node's key and the primary's; without them the link does not leave this host.
    pub keys: Option<Keys>,
    /// Where this node listens when it runs the guest: who was primary before it joins it there.
    pub listens: Option<Address>,
    /// The guest that it follows and no other, if that is known already.
    pub vm: Option<VmId>,
    /// The record by which another node runs the guest, if this one knows of it already.
    pub known: Option<Record>,
    /// This host.
    pub fingerprint: Fingerprint,
    /// Who decides which node runs the guest; without one this node never takes over.
    pub arbiter: Option<Arc<dyn Arbiter>>,
    /// How long things take.
    pub timing: Timing,
    /// Makes the guest's processor.
    pub cpu: MakeCpu<C>,
    /// Finds names for the guest's addresses.
    pub symbols: fn(&MachineConfig) -> Symbols,
    /// What this node has before it is given a state, on its way here: most of the first may be in it already.
    pub base: Option<oneshot::Receiver<Base>>,
    /// Where reports of divergences go; one that is not taken in time is lost.
    pub reports: Option<flume::Sender<Arc<Report>>>,
}

/// What the outside asks of a node.
pub enum Command {
    /// How are you?
    Status(oneshot::Sender<Status>),
    /// End this node; the guest goes on without it.
    Stop(oneshot::Sender<()>),
    /// Have the guest handed over by the primary; answered when this node runs it, or with the reason why it does not.
    Promote(oneshot::Sender<Result<(), String>>),
    /// Make a fault in this node's machine behind its next checkpoint, for a test; answered by whether there is a machine.
    Spoil(Spoil, oneshot::Sender<bool>),
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
    engine: Engine,
    connection: Option<Connection>,
    guest: Option<Guest<C>>,
    /// The guest came to its own end, or to where it could not follow any more.
    followed: Option<Followed<C>>,
    /// A guest that was given up. Its memory serves the next state.
    former: Option<oneshot::Receiver<Followed<C>>>,
    /// What is here for a state that was announced.
    prepared: Option<oneshot::Receiver<Result<Base, String>>>,
    config: Option<MachineConfig>,
    /// What comes of the last dialling; of earlier ones nobody wants to know.
    dialled: Option<oneshot::Receiver<Dialled>>,
    answers: (flume::Sender<Answer>, flume::Receiver<Answer>),
    silence: Silence,
    /// Bytes of links that are gone.
    carried: u64,
    /// How long the primary had been silent when it was suspected, and when that was.
    suspected: Option<(Duration, Instant)>,
    promoted: Option<Record>,
    /// Who waits for this node to become the primary.
    askers: Vec<oneshot::Sender<Result<(), String>>>,
    outcome: Option<Outcome<C>>,
}

/// What the node keeps of the link to the primary; the engine has the half that sends.
struct Connection {
    receiver: Receiver,
    traffic: Arc<Traffic>,
}

/// What became of dialling.
type Dialled = Result<(Link, Welcome), LinkError>;

/// What the loop woke up for. A message has been handled already.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is used at once")]
enum Event<C> {
    Message,
    LinkError(LinkError),
    Flushed,
    Dialled(Dialled),
    Answer(Answer),
    Prepared(Result<Base, String>),
    Loaded(Result<Loaded, String>),
    News(News),
    GuestEnded(Option<Followed<C>>),
    Command(Command),
    Full,
    Tick,
}

impl<C: Cpu + Send + 'static> Node<C> {
    /// A node that holds nothing.
    #[must_use]
    pub fn new(settings: Settings<C>) -> Node<C> {
        let engine = Engine::new(settings.me, settings.fingerprint.clone(), settings.timing)
            .listening(settings.listens.clone())
            .naming(settings.symbols);
        let engine = match (&settings.known, settings.vm) {
            (Some(record), _) => engine.knowing(record),
            (None, Some(vm)) => engine.of(vm),
            (None, None) => engine,
        };
        Node {
            engine,
            settings,
            connection: None,
            guest: None,
            followed: None,
            former: None,
            prepared: None,
            config: None,
            dialled: None,
            answers: flume::bounded(1),
            silence: Silence::default(),
            carried: 0,
            suspected: None,
            promoted: None,
            askers: Vec::new(),
            outcome: None,
        }
    }

    /// Follows until this node is the primary, the guest has ended, or the node is stopped.
    ///
    /// # Errors
    /// If the primary will never want this node, or the guest cannot go live.
    pub async fn run(mut self, commands: &flume::Receiver<Command>) -> Result<Outcome<C>, NodeError> {
        self.engine.begin(boot_time());
        loop {
            self.obey()?;
            if let Some(outcome) = self.outcome.take() {
                return Ok(outcome);
            }
            if let Some(record) = self.promoted.take() {
                return self.promote(record).await;
            }
            let event = self.wait(commands).await;
            let answers = matches!(event, Event::Message) && self.is_settled();
            self.handle(event)?;
            // The primary's effects wait for the acknowledgement, and what is acknowledged is here: that goes first.
            if answers && let Some(Err(error)) = flush_at_once(self.engine.sender()).await {
                self.engine.link_lost(boot_time(), &error.to_string());
            }
        }
    }

    /// Whether nothing more is here: then answers go out. Else one answer serves for all of it.
    fn is_settled(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| !connection.receiver.has_message())
    }

    async fn wait(&mut self, commands: &flume::Receiver<Command>) -> Event<C> {
        let now = boot_time();
        let sleep = self.engine.wake_at().map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
        let settled = self.is_settled();
        // The primary is told to wait long before this; it must not be taken for silent while nobody listens.
        let full = self.followed.is_none() && self.guest.as_ref().is_some_and(Guest::is_full);
        let (loaded, news, ended, spare) = match &mut self.guest {
            Some(guest) => {
                (guest.loaded.as_mut(), Some(&guest.news), Some(&mut guest.ended), Some(&guest.spare))
            }
            None => (None, None, None, None),
        };
        let receiver = self.connection.as_mut().map(|connection| &mut connection.receiver);
        tokio::select! {
            biased;
            ended = told(ended), if self.followed.is_none() => Event::GuestEnded(ended),
            flushed = flush_or_wait(self.engine.sender()), if settled || full => {
                flushed.map_or_else(Event::LinkError, |()| Event::Flushed)
            }
            message = receive_or_wait(receiver), if !full => match message {
                Ok(message) => {
                    self.engine.message(boot_time(), Instant::now(), message, spare);
                    Event::Message
                }
                Err(error) => Event::LinkError(error),
            },
            Ok(news) = heard(news) => Event::News(news),
            Some(prepared) = told(self.prepared.as_mut()) => Event::Prepared(prepared),
            Some(dialled) = told(self.dialled.as_mut()) => Event::Dialled(dialled),
            Ok(answer) = self.answers.1.recv_async() => Event::Answer(answer),
            loaded = told(loaded) => Event::Loaded(loaded.unwrap_or_else(|| Err("the thread died".into()))),
            Ok(command) = commands.recv_async() => Event::Command(command),
            () = tokio::time::sleep(ROOM), if full => Event::Full,
            () = tokio::time::sleep(sleep) => Event::Tick,
        }
    }

    fn handle(&mut self, event: Event<C>) -> Result<(), NodeError> {
        let now = boot_time();
        match event {
            Event::Message | Event::Flushed => {}
            Event::LinkError(error) => self.engine.link_lost(now, &error.to_string()),
            Event::Dialled(dialled) => {
                self.dialled = None;
                match dialled {
                    Ok((link, welcome)) => {
                        self.disconnect();
                        let connection = Connection { traffic: link.traffic(), receiver: link.receiver };
                        self.connection = Some(connection);
                        self.engine.connected(now, link.sender, &welcome);
                    }
                    Err(error) if is_final(&error) && !self.engine.is_eligible() => return Err(error.into()),
                    Err(error) => self.engine.not_connected(now, &error),
                }
            }
            Event::Answer(answer) => self.engine.answered(now, Some(answer)),
            Event::Loaded(loaded) => {
                if let Some(guest) = &mut self.guest {
                    guest.loaded = None;
                }
                let loaded = loaded.map(|loaded| self.config = Some(loaded.config));
                self.engine.loaded(now, loaded);
            }
            Event::Prepared(prepared) => {
                self.prepared = None;
                self.engine.prepared(now, prepared);
            }
            // The arbiter's answer may make this node the only one that could run the guest: then it goes back, or says that it
            // cannot.
            Event::News(News::Strayed(_)) if self.engine.state() == State::TakingOver => {}
            Event::News(News::Strayed(why)) => self.engine.diverged(now, &why),
            Event::News(News::WentBack(result)) => self.engine.went_back(now, result),
            Event::GuestEnded(None) => return Err(NodeError::GuestDied),
            Event::GuestEnded(Some(followed)) => self.followed = Some(followed),
            Event::Command(Command::Status(reply)) => {
                // Who asked may be gone.
                let _ = reply.send(self.status());
            }
            Event::Command(Command::Stop(reply)) => {
                let _ = reply.send(());
                self.outcome = Some(Outcome::Stopped);
            }
            Event::Command(Command::Promote(reply)) => match self.engine.promote() {
                Ok(()) => self.askers.push(reply),
                Err(why) => drop(reply.send(Err(why.to_owned()))),
            },
            Event::Command(Command::Spoil(spoil, reply)) => {
                let guest = self.guest.as_ref().filter(|guest| guest.loaded.is_none());
                let _ = reply.send(guest.is_some_and(|guest| guest.spoils.try_send(spoil).is_ok()));
            }
            Event::Full => self.engine.busy(now),
            Event::Tick => {
                if let Some(connection) = &self.connection {
                    self.engine.heard_at(connection.traffic.heard());
                }
                self.engine.tick(now);
            }
        }
        Ok(())
    }

    /// Does what the engine has ordered.
    fn obey(&mut self) -> Result<(), NodeError> {
        while let Some(order) = self.engine.order() {
            match order {
                Order::Dial(at, hello) => self.dial(at, hello),
                Order::HangUp(sender) => say_last(sender),
                Order::Prepare(size) => self.prepare(size),
                Order::Load(fetched, progress) => {
                    let guest = Guest::start(fetched, progress, self.settings.cpu);
                    self.guest = Some(guest.map_err(NodeError::Thread)?);
                }
                Order::Append(arrived) => {
                    if let Some(guest) = &self.guest {
                        guest.append(arrived);
                    }
                }
                Order::GoBack => match &self.guest {
                    Some(guest) if self.followed.is_none() => guest.go_back(),
                    _ => self.engine.went_back(boot_time(), Err("the replaying thread has ended".to_owned())),
                },
                Order::Forget => self.retire(true),
                Order::Ask(question) => self.ask_arbiter(question),
                Order::Promote(record) => self.promoted = Some(record),
                Order::Keep(why) => {
                    for asker in self.askers.drain(..) {
                        // Who asked may be gone.
                        let _ = asker.send(Err(why.clone()));
                    }
                }
                Order::End(text) => self.outcome = Some(Outcome::Ended(text)),
            }
        }
        if self.engine.sender().is_none() {
            self.disconnect();
        }
        if let Some(report) = self.engine.take_report()
            && let Some(reports) = &self.settings.reports
        {
            // It was told on stderr, and `status` has it.
            let _ = reports.try_send(report);
        }
        Ok(())
    }

    /// Ends the guest's thread: at once if the guest is given up, else behind what there is of its log.
    fn retire(&mut self, given_up: bool) {
        let Some(guest) = self.guest.take() else { return };
        self.former = Some(match self.followed.take() {
            Some(followed) => {
                let (ended, former) = oneshot::channel();
                let _ = ended.send(followed);
                former
            }
            None => guest.retire(given_up),
        });
    }

    /// Looks what is here for a state, on a thread that may read all of RAM.
    fn prepare(&mut self, size: u64) {
        self.retire(false);
        let (former, first) = (self.former.take(), self.settings.base.take());
        let (tell, prepared) = oneshot::channel();
        self.prepared = Some(prepared);
        tokio::spawn(async move {
            // A guest that was not even loaded leaves nothing, and one that never comes out is not waited for.
            let former = match former {
                Some(former) => tokio::time::timeout(RETIRE, former).await.ok().and_then(Result::ok),
                None => None,
            };
            // Who has promised it may have found nothing.
            let first = match first {
                Some(first) => first.await.ok(),
                None => None,
            };
            tokio::task::spawn_blocking(move || {
                let former = former.map(|followed| followed.machine);
                let former = former.filter(|machine| machine.memory().size() == size);
                let base = former.map(Base::of).or(first).filter(|base| base.memory.size() == size);
                let base = base.map_or_else(|| Base::new(size), Ok);
                // Nobody to take it means that the node is ending.
                let _ = tell.send(base.map_err(|error| error.to_string()));
            });
        });
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.carried += connection.traffic.sent() + connection.traffic.received();
        }
    }

    fn dial(&mut self, at: Duration, hello: Hello) {
        let wait = at.saturating_sub(boot_time());
        let timeout = self.settings.timing.suspicion;
        let (join, keys) = (self.settings.join.clone(), self.settings.keys.clone());
        let (answer, dialled) = oneshot::channel();
        self.dialled = Some(dialled);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let dialling = async {
                let mut link = dial(&join, keys.as_ref(), timeout).await?;
                let welcome = greet(&mut link, &hello, timeout).await?;
                Ok((link, welcome))
            };
            // Nobody to hear it means that the node is ending, or dials anew.
            let _ = answer.send(dialling.await);
        });
    }

    /// Asks the arbiter on a thread that may wait for it. The answer comes through the channel.
    fn ask_arbiter(&mut self, question: Question) {
        let now = boot_time();
        self.suspected = Some((self.engine.silence(now), Instant::now()));
        let Some(arbiter) = self.settings.arbiter.clone() else {
            // Without an arbiter nobody may go live.
            return self.engine.answered(now, None);
        };
        let (answers, silence) = (self.answers.0.clone(), self.silence.clone());
        tokio::task::spawn_blocking(move || {
            let answer = ask(&*arbiter, question, &answers, &silence);
            // Nobody to hear the answer means that the node is ending.
            answer.map(|answer| answers.send(answer))
        });
    }

    /// Executes what is left of the log, and hands the guest over.
    async fn promote(mut self, record: Record) -> Result<Outcome<C>, NodeError> {
        let answered = Instant::now();
        let guest = self.guest.take().ok_or(NodeError::GuestDied)?;
        let config = self.config.take().ok_or(NodeError::GuestDied)?;
        let progress = guest.progress.clone();
        let followed = match self.followed.take() {
            Some(followed) => followed,
            None => guest.finish().await.map_err(|_| NodeError::GuestDied)?,
        };
        let (suspicion, suspected) = self.suspected.unwrap_or((Duration::ZERO, answered));
        let times = Times { suspicion, arbiter: answered - suspected, replay: answered.elapsed() };
        let Followed { machine, mut unconfirmed, clock, reached } = followed;
        if let Reached::Stopped = reached? {
            // The operator's stop was in the log, but the primary died before it was on record.
            self.end(record).await;
            return Ok(Outcome::Ended("the guest was stopped".to_owned()));
        }
        unconfirmed.released(progress.released());
        let askers = self.askers;
        Ok(Outcome::Promoted(Box::new(Promotion {
            machine,
            config,
            record,
            unconfirmed,
            clock,
            times,
            askers,
        })))
    }

    /// Puts on record that the guest was shut down.
    async fn end(&self, record: Record) {
        let (Some(arbiter), Ok(to)) =
            (self.settings.arbiter.clone(), rules::end(Some(&record), self.settings.me))
        else {
            return;
        };
        let (answers, silence) = (self.answers.0.clone(), self.silence.clone());
        let question = Question::Replace { from: record, to };
        let answer = tokio::task::spawn_blocking(move || ask(&*arbiter, question, &answers, &silence)).await;
        if !matches!(answer, Ok(Some(Answer::Won(_)))) {
            tracing::warn!("the guest was stopped, but that is not on the arbiter's record");
        }
    }

    fn status(&self) -> Status {
        let traffic = self.connection.as_ref().map(|connection| &connection.traffic);
        let link_bytes = self.carried + traffic.map_or(0, |traffic| traffic.sent() + traffic.received());
        Status { link_bytes, arbiter_silent: self.silence.why(), ..self.engine.status() }
    }
}

/// Asks until there is an answer, or nobody to hear it.
fn ask(
    arbiter: &dyn Arbiter,
    question: Question,
    answers: &flume::Sender<Answer>,
    silence: &Silence,
) -> Option<Answer> {
    let problem = |error: &ArbiterError| {
        if silence.go_on(error) {
            tracing::error!("no answer from the arbiter, the guest waits: {error}");
        }
    };
    let answer = arbiter::ask(arbiter, question, || answers.is_disconnected(), problem);
    silence.end();
    answer
}

/// Writes what is queued, which may say why, and closes the link.
fn say_last(mut sender: Sender) {
    if !sender.is_flushed() {
        tokio::spawn(async move { tokio::time::timeout(COURTESY, sender.flush()).await });
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

/// What the replaying thread says; waits for ever where there is none.
async fn heard<T>(from: Option<&flume::Receiver<T>>) -> Result<T, flume::RecvError> {
    match from {
        Some(from) => from.recv_async().await,
        None => pending().await,
    }
}

/// What another thread tells, or `None` if it died; waits for ever where none will.
async fn told<T>(from: Option<&mut oneshot::Receiver<T>>) -> Option<T> {
    match from {
        Some(from) => from.await.ok(),
        None => pending().await,
    }
}
