//! The node's loop: moves messages, fires timers, and does what the engine says.

use std::{
    net::IpAddr,
    panic::resume_unwind,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use echovisor_event::{NodeId, Position};
use echovisor_log::{
    Batch, Compression, Mark, SegmentStart,
    arbiter::{self, Answer, Arbiter, Question, Silence},
    link::{
        Address, Fingerprint, LinkError, Ours, Receiver, Sender, Traffic, boot_time, flush_at_once,
        flush_or_wait, receive_or_wait,
    },
};
use echovisor_machine::Memory;
use echovisor_snapshot::{Capture, sync::Source};
use tokio::sync::oneshot;

use super::{
    cluster::Cluster,
    door::{Door, Joiner},
    engine::{Engine, Order, Promise, Ticket},
    outcome::{Broken, End, NodeError, Outcome},
    status::Status,
};
use crate::{
    Captured, Ended, Entry, JournalReader, Keeper, Kept, Purpose, RecordError, Request, Signals,
    archive::Archive, gate::Gate,
};

/// How long saying goodbye, or why not, may take.
const COURTESY: Duration = Duration::from_secs(1);

/// How long a guest's thread may take to end that is not wanted any more: it may be in the middle of a checkpoint.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// Bytes for which it is worth to write before more is encoded.
const WRITE: usize = 64 << 10;

/// How soon to look again whether a disk that is behind takes more.
const DISK_BEHIND: Duration = Duration::from_millis(1);

/// What the outside asks of a node.
pub enum Command {
    /// How are you?
    Status(oneshot::Sender<Status>),
    /// Take a snapshot; answered when it is on disk.
    Snapshot(oneshot::Sender<Kept>),
    /// End the guest; answered when that is done.
    Stop(oneshot::Sender<()>),
    /// Hand the guest over to the secondary; answered when that runs it, or with the reason why this node keeps it.
    HandOver(oneshot::Sender<Result<(), &'static str>>),
}

/// The guest's thread, seen from the node.
pub struct Guest {
    /// What it writes.
    pub journal: JournalReader,
    /// How to ask it for something.
    pub requests: flume::Sender<Request>,
    /// How to get its attention.
    pub signals: Arc<Signals>,
    /// Where its effects pass.
    pub gate: Arc<Gate>,
    /// What it leaves.
    pub left: oneshot::Receiver<Left>,
}

/// What a guest's thread leaves.
pub struct Left {
    /// How the guest ended.
    pub how: Result<Ended, RecordError>,
    /// Its memory. Nothing runs in it any more.
    pub memory: Memory,
}

/// A node that runs a guest.
pub struct Node {
    guest: Guest,
    engine: Engine,
    archive: Option<Archive>,
    keeper: Option<Keeper>,
    history_lost: bool,
    /// The segment that was begun last.
    segment: u64,
    arbiter: Option<Arc<dyn Arbiter>>,
    door: Option<Door>,
    connection: Option<Connection>,
    answers: (flume::Sender<Answer>, flume::Receiver<Answer>),
    silence: Silence,
    /// States on their way from the thread that reads them.
    states: (flume::Sender<Offered>, flume::Receiver<Offered>),
    /// Who waits for the guest's end.
    stoppers: Vec<oneshot::Sender<()>>,
    /// Who waits for the secondary to run the guest.
    askers: Vec<oneshot::Sender<Result<(), &'static str>>>,
    ending: Option<Ended>,
    /// The guest's, once its thread has ended.
    memory: Option<Memory>,
    journal_ended: bool,
    end: Option<End>,
    /// Where the last secondary will listen when it is the primary.
    successor: Option<Address>,
    /// Bytes of connections that are gone.
    carried: u64,
}

/// A state that can be given, and to whom.
type Offered = (Ticket, Box<Source>);

/// What the node keeps of the connection to the secondary; the engine has the half that sends.
struct Connection {
    receiver: Receiver,
    traffic: Arc<Traffic>,
    from: Option<IpAddr>,
}

/// What the loop woke up for. A message has been handled already.
enum Event {
    Message,
    Entry(Entry),
    JournalEnded,
    State(Ticket, Box<Source>),
    LinkError(LinkError),
    Flushed(Result<(), LinkError>),
    Joiner(Box<Joiner>),
    Answer(Answer),
    Command(Command),
    GuestEnded(Option<Left>),
    Tick,
}

impl Node {
    /// A node for `guest`, whose log begins at `start`, and goes to `archive` and to who joins `cluster`.
    #[must_use]
    pub fn new(
        me: NodeId,
        guest: Guest,
        config: Vec<u8>,
        start: SegmentStart,
        archive: Option<Archive>,
        cluster: Option<(Cluster, Fingerprint)>,
    ) -> Node {
        let (mut arbiter, mut door) = (None, None);
        let replication = cluster.map(|(cluster, fingerprint)| {
            let record = cluster.record;
            let ours = Ours { vm: record.vm, node: me, term: record.term, fingerprint };
            door = cluster.listener.map(|listener| Door::open(listener, ours.clone()));
            arbiter = Some(cluster.arbiter);
            (ours, record, cluster.timing)
        });
        Node {
            engine: Engine::new(guest.gate.clone(), config, start, archive.is_some(), replication),
            guest,
            archive,
            keeper: None,
            history_lost: false,
            segment: start.segment,
            arbiter,
            door,
            connection: None,
            answers: flume::bounded(1),
            silence: Silence::default(),
            states: flume::bounded(1),
            stoppers: Vec::new(),
            askers: Vec::new(),
            ending: None,
            memory: None,
            journal_ended: false,
            end: None,
            successor: None,
            carried: 0,
        }
    }

    /// Compresses the log, which begins at `start`, more or less.
    #[must_use]
    pub fn compressing(self, start: SegmentStart, compression: Compression) -> Node {
        Node { engine: self.engine.compressing(start, compression), ..self }
    }

    /// Has snapshots taken, beside the archive's log.
    #[must_use]
    pub fn keeping(self, keeper: Keeper) -> Node {
        Node { keeper: Some(keeper), ..self }
    }

    /// Runs until the guest has ended, here and on record, or another node runs it.
    ///
    /// # Errors
    /// If the guest's machine, the log or the recording fails.
    pub async fn run(mut self, commands: flume::Receiver<Command>) -> Result<Outcome, NodeError> {
        self.snapshot_if_due(Position(self.guest.signals.position.load(Ordering::Relaxed)));
        while self.end.is_none() {
            let event = self.wait(&commands).await;
            let sends = matches!(event, Event::Entry(_)) && self.is_settled();
            if let Err(broken) = self.handle(event) {
                return Err(self.fail(broken).await);
            }
            if sends && let Some(flushed) = flush_at_once(self.engine.sender()).await {
                self.flushed(flushed);
            }
            if self.ending.is_some() && self.journal_ended && !self.guest.gate.holds() {
                self.engine.end(boot_time());
            }
            self.obey();
        }
        self.door = None;
        let end = self.end.take().expect("the loop ends with a reason");
        if let End::Guest(ended) = &end {
            self.say_goodbye(ended).await;
        }
        let store = match self.archive.take().map(Archive::close).transpose() {
            // The guest is elsewhere, and whole.
            Err(error) if matches!(end, End::Fenced { .. }) => {
                tracing::error!("the guest's history lacks its end here, and is not gone on with: {error}");
                None
            }
            closed => closed?,
        };
        let history = store.zip(self.keeper.take().map(Keeper::close)).map(Box::new);
        match end {
            End::Guest(ended) => {
                self.answer_askers(Err("the guest has ended"));
                for stopper in self.stoppers.drain(..) {
                    // Who asked may be gone.
                    let _ = stopper.send(());
                }
                Ok(Outcome::Ended(ended))
            }
            End::Fenced { record, successor, handed_over } => {
                self.answer_askers(Ok(()));
                let memory = match self.ending {
                    Some(_) => self.memory.take(),
                    None => give_up(self.guest).await?,
                };
                Ok(Outcome::Fenced { record, successor, handed_over, memory, history })
            }
        }
    }

    /// Whether what is queued goes out before more is encoded. Where more is here already, one write serves for all of it.
    fn is_settled(&mut self) -> bool {
        self.guest.journal.entries().is_empty()
            || self.engine.sender().is_some_and(|sender| sender.queued() >= WRITE)
    }

    async fn wait(&mut self, commands: &flume::Receiver<Command>) -> Event {
        let now = boot_time();
        let sleep = self.engine.wake_at().map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
        let disk_behind = self.archive.as_ref().is_some_and(|archive| !archive.has_room());
        let has_room = !disk_behind && self.engine.has_room();
        // The disk's thread releases what waited for it, and tells nobody.
        let disk_behind = disk_behind || (self.ending.is_some() && self.guest.gate.holds());
        let settled = self.is_settled() || !has_room;
        let journal = self.guest.journal.entries();
        let receiver = self.connection.as_mut().map(|connection| &mut connection.receiver);
        tokio::select! {
            biased;
            message = receive_or_wait(receiver) => match message {
                Ok(message) => {
                    self.engine.message(boot_time(), &message);
                    Event::Message
                }
                Err(error) => Event::LinkError(error),
            },
            answer = self.answers.1.recv_async() => answer.map_or(Event::Tick, Event::Answer),
            Ok((ticket, source)) = self.states.1.recv_async() => Event::State(ticket, source),
            flushed = flush_or_wait(self.engine.sender()), if settled => Event::Flushed(flushed),
            entry = journal.recv_async(), if has_room && !self.journal_ended => {
                entry.map_or(Event::JournalEnded, Event::Entry)
            }
            joiner = Door::joiner(self.door.as_ref()) => Event::Joiner(Box::new(joiner)),
            Ok(command) = commands.recv_async() => Event::Command(command),
            left = &mut self.guest.left, if self.ending.is_none() => Event::GuestEnded(left.ok()),
            () = tokio::time::sleep(DISK_BEHIND), if disk_behind => Event::Tick,
            () = tokio::time::sleep(sleep) => Event::Tick,
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Broken> {
        let now = boot_time();
        match event {
            Event::Message => {
                if let Some(address) = self.engine.take_listens() {
                    let from = self.connection.as_ref().and_then(|connection| connection.from);
                    self.successor = address.told_by(from);
                }
            }
            Event::Flushed(flushed) => self.flushed(flushed),
            Event::Entry(Entry::Batch(batch, mark)) => self.batch(now, batch, mark)?,
            Event::Entry(Entry::Paused(number, at, digest)) => self.engine.paused(now, number, at, digest),
            Event::Entry(Entry::Capture(captured)) => self.captured(*captured)?,
            Event::State(ticket, source) => self.engine.give(now, ticket, *source),
            Event::JournalEnded => self.journal_ended = true,
            Event::GuestEnded(left) => {
                let Left { how, memory } = left.ok_or(NodeError::GuestDied)?;
                self.ending = Some(how.map_err(NodeError::from)?);
                self.memory = Some(memory);
            }
            Event::LinkError(error) => self.engine.link_lost(now, &error.to_string()),
            Event::Joiner(joiner) => {
                let Joiner { hello, link, from } = *joiner;
                let traffic = link.traffic();
                match self.engine.hello(now, &hello, link.sender) {
                    Ok(()) => {
                        self.disconnect();
                        self.connection = Some(Connection { receiver: link.receiver, traffic, from });
                    }
                    Err(sender) => say_last(sender),
                }
            }
            Event::Answer(answer) => self.engine.answered(now, answer),
            Event::Command(Command::Status(reply)) => {
                // Who asked may be gone.
                let _ = reply.send(self.status());
            }
            Event::Command(Command::Snapshot(reply)) => match &mut self.keeper {
                Some(keeper) => {
                    keeper.want(reply);
                    self.snapshot_if_due(Position(self.guest.signals.position.load(Ordering::Relaxed)));
                }
                // Who asked may be gone.
                None => drop(reply.send(Kept::Nowhere)),
            },
            Event::Command(Command::Stop(reply)) => {
                self.stoppers.push(reply);
                if self.keeper.as_mut().is_some_and(Keeper::asks_last) {
                    self.ask(Request::Capture(Purpose::Snapshot));
                }
                self.ask(Request::Stop);
            }
            Event::Command(Command::HandOver(reply)) => {
                self.askers.push(reply);
                self.engine.hand_over(now);
            }
            Event::Tick => self.engine.tick(now),
        }
        Ok(())
    }

    fn flushed(&mut self, flushed: Result<(), LinkError>) {
        let now = boot_time();
        match flushed {
            Ok(()) => self.engine.flushed(now),
            Err(error) => self.engine.link_lost(now, &error.to_string()),
        }
    }

    fn batch(&mut self, now: Duration, batch: Batch, mark: Mark) -> Result<(), Broken> {
        let encoded = self.engine.batch(now, &batch, mark).map_err(NodeError::from)?;
        self.guest.journal.recycle(batch);
        let (Some(archive), Some(encoded)) = (&self.archive, encoded) else { return Ok(()) };
        let archived = archive.append(encoded.head, encoded.digests, encoded.body);
        if let Some(start) = &encoded.next {
            self.segment = start.segment;
        }
        let begun = encoded.next.map_or(Ok(()), |start| archive.begin(start));
        if archived.and(begun).is_err() {
            return self.archive_failed();
        }
        self.snapshot_if_due(mark.watermark);
        Ok(())
    }

    /// The state that was asked for.
    fn captured(&mut self, Captured { purpose, capture, .. }: Captured) -> Result<(), Broken> {
        match purpose {
            Purpose::Join => self.join(capture),
            Purpose::Snapshot => {
                // Its checkpoint has ended the segment before.
                if let Some(keeper) = &mut self.keeper {
                    keeper.take(capture, self.segment);
                }
                Ok(())
            }
        }
    }

    /// Has a snapshot taken if that is due, now that the guest has come to `at`.
    fn snapshot_if_due(&mut self, at: Position) {
        if self.keeper.as_mut().is_some_and(|keeper| keeper.asks(at)) {
            self.ask(Request::Capture(Purpose::Snapshot));
        }
    }

    /// The state that a joining secondary is to be given.
    fn join(&mut self, capture: Arc<Capture>) -> Result<(), Broken> {
        let Some(Promise { start, ticket }) = self.engine.promise(capture.position()) else {
            return Ok(());
        };
        // Reading all of RAM takes its time, and the heartbeats must go on.
        let states = self.states.0.clone();
        tokio::task::spawn_blocking(move || {
            // Nobody to take it means that the node is ending.
            drop(states.send((ticket, Box::new(Source::new(capture)))));
        });
        self.segment = start.segment;
        if let Some(archive) = &self.archive
            && archive.begin(start).is_err()
        {
            return self.archive_failed();
        }
        Ok(())
    }

    /// Does what the engine has ordered.
    fn obey(&mut self) {
        self.guest.signals.unread.store(!self.engine.is_read(), Ordering::Release);
        while let Some(order) = self.engine.order() {
            let signals = &self.guest.signals;
            match order {
                Order::TakeImage => self.ask(Request::Capture(Purpose::Join)),
                Order::Ask(question) => self.ask_arbiter(question),
                Order::Start => {
                    signals.hold.store(false, Ordering::Release);
                    signals.bell.ring();
                }
                Order::Throttle(throttle) => {
                    signals.throttle.store(throttle, Ordering::Release);
                    signals.bell.ring();
                }
                Order::Pause(number) => self.ask(Request::Pause(number)),
                Order::Resume => self.ask(Request::Resume),
                Order::Keep(why) => self.answer_askers(Err(why)),
                Order::Halt(record) => {
                    // Whatever it still does is nobody's.
                    self.ask(Request::Stop);
                    let (successor, handed_over) = (self.successor.take(), self.engine.has_handed_over());
                    self.end = Some(End::Fenced { record, successor, handed_over });
                }
                Order::Finish => self.end = self.ending.take().map(End::Guest),
            }
        }
        if self.engine.sender().is_none() {
            self.disconnect();
        }
    }

    /// Tells those who wait for it, and may be gone, what has become of the switchover.
    fn answer_askers(&mut self, answer: Result<(), &'static str>) {
        for asker in self.askers.drain(..) {
            let _ = asker.send(answer);
        }
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.carried += connection.traffic.sent() + connection.traffic.received();
        }
    }

    /// Asks the guest's thread for something.
    fn ask(&self, request: Request) {
        // A thread that is gone, or busy with as many requests, will be noticed elsewhere.
        let _ = self.guest.requests.try_send(request);
        self.guest.signals.pause.store(true, Ordering::Release);
        self.guest.signals.bell.ring();
    }

    /// Asks the arbiter on a thread that may wait for it. The answer comes through the channel.
    fn ask_arbiter(&self, question: Question) {
        let Some(arbiter) = self.arbiter.clone() else { return };
        let (answers, silence) = (self.answers.0.clone(), self.silence.clone());
        tokio::task::spawn_blocking(move || {
            let answer = arbiter::ask(
                &*arbiter,
                question,
                || answers.is_disconnected(),
                |error| {
                    if silence.go_on(error) {
                        tracing::error!("no answer from the arbiter, effects wait: {error}");
                    }
                },
            );
            silence.end();
            // Nobody to hear the answer means that the node is ending.
            answer.map(|answer| answers.send(answer))
        });
    }

    /// Tells the secondary that the guest has ended.
    async fn say_goodbye(&mut self, ended: &Ended) {
        self.engine.say_goodbye(match ended {
            Ended::Stopped => "the guest was stopped",
            _ => "the guest has ended",
        });
        let _ = tokio::time::timeout(COURTESY, flush_or_wait(self.engine.sender())).await;
    }

    /// The archive's thread has ended: the guest goes on without it, or not at all.
    fn archive_failed(&mut self) -> Result<(), Broken> {
        let Some(archive) = self.archive.take_if(|archive| archive.is_dispensable()) else {
            return Err(Broken::Archive);
        };
        let keeper = self.keeper.take();
        self.history_lost = true;
        // The guest waits for none of it.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = archive.close() {
                tracing::error!("the guest goes on, but its history is not kept any more: {error}");
            }
            keeper.map(Keeper::close)
        });
        Ok(())
    }

    /// Gives up after an error. Nothing leaves any more, and the secondary sees at once that nobody is here; then there is time
    /// to wait for the disk.
    async fn fail(self, broken: Broken) -> NodeError {
        self.ask(Request::Stop);
        let Node { guest, engine, archive, door, connection, .. } = self;
        guest.gate.fence();
        if let Some(door) = door {
            door.close();
        }
        // Each has one half of the link.
        drop((engine, connection));
        let closing = tokio::task::spawn_blocking(move || archive.map(Archive::close));
        let closed = closing.await.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        match (broken, closed) {
            (Broken::Node(error), _) => error,
            (Broken::Archive, Some(Err(error))) => error.into(),
            (Broken::Archive, _) => NodeError::GuestDied,
        }
    }

    fn status(&self) -> Status {
        let signals = &self.guest.signals;
        let traffic = self.connection.as_ref().map(|connection| &connection.traffic);
        Status {
            position: Position(signals.position.load(Ordering::Relaxed)),
            guest_rx_bytes: signals.received.load(Ordering::Relaxed),
            link_bytes: self.carried + traffic.map_or(0, |traffic| traffic.sent() + traffic.received()),
            arbiter_silent: self.silence.why(),
            history_lost: self.history_lost,
            refused: self.door.as_ref().map(Door::refused).unwrap_or_default(),
            snapshots: self.keeper.as_ref().map(Keeper::status),
            deltas: signals.deltas.load(Ordering::Relaxed),
            delta_pages: signals.delta_pages.load(Ordering::Relaxed),
            ..self.engine.status(boot_time())
        }
    }
}

/// Waits until the guest's thread has ended, and its machine with it. The memory stays.
async fn give_up(guest: Guest) -> Result<Option<Memory>, NodeError> {
    let Guest { journal, requests, signals, left, .. } = guest;
    // Whatever it still has to write nobody reads, and whatever it waits for nobody sends.
    drop((journal, requests));
    signals.bell.ring();
    match tokio::time::timeout(GIVEN_UP, left).await {
        // How it ended is nobody's concern.
        Ok(left) => Ok(left.ok().map(|left| left.memory)),
        Err(_) => Err(NodeError::GuestStays),
    }
}

/// Writes what is queued, and closes the link.
fn say_last(mut sender: Sender) {
    tokio::spawn(async move { tokio::time::timeout(COURTESY, sender.flush()).await });
}
