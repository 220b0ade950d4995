//! The node's loop: moves messages, fires timers, and does what the protocol says.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use echovisor_event::{Digest, NodeId, Position};
use echovisor_log::{
    Batch, EncodeError, Encoder, Mark, Record as LogRecord, SegmentStart,
    arbiter::Record,
    link::{
        Ack, Fingerprint, Heartbeat, LinkError, Message, Ours, Ready, RefuseCode, Resume, boot_time,
        flush_or_wait, receive_or_wait, refuse, welcome,
    },
    store::StoreError,
};
use echovisor_snapshot::Image;
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    cluster::{self, Answer, Cluster, Joiner},
    peer::Peer,
    protocol::{Action, Input, Protocol, State},
    status::Status,
};
use crate::{
    Ended, Entry, JournalReader, RecordError, Request, Signals,
    archive::Archive,
    gate::{Gate, Lease, Required, Source},
};

/// How long saying goodbye or welcome may take.
const COURTESY: Duration = Duration::from_secs(1);

/// Bytes for which it is worth to write before more is encoded.
const WRITE: usize = 64 << 10;

/// How soon to look again whether a disk that is behind takes more.
const DISK_BEHIND: Duration = Duration::from_millis(1);

/// What the outside asks of a node.
pub enum Command {
    /// How are you?
    Status(oneshot::Sender<Status>),
    /// End the guest; answered when that is done.
    Stop(oneshot::Sender<()>),
}

/// How a node's work ended.
#[derive(Debug)]
pub enum Outcome {
    /// The guest ended, everywhere.
    Ended(Ended),
    /// Another primary runs the guest, as the arbiter's record says.
    Fenced(Option<Record>),
}

/// Why a node could not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The guest's thread.
    #[error(transparent)]
    Guest(#[from] RecordError),
    /// The guest's thread ended without a word.
    #[error("the guest's thread died")]
    GuestDied,
    /// The log.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The recording.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// How it ended.
    pub ended: oneshot::Receiver<Result<Ended, RecordError>>,
}

/// A node that runs a guest.
pub struct Node {
    guest: Guest,
    me: NodeId,
    /// The machine's configuration, for those who join.
    config: Vec<u8>,
    encoder: Encoder,
    archive: Option<Archive>,
    protocol: Option<Protocol>,
    arbiter: Option<Arc<dyn echovisor_log::arbiter::Arbiter>>,
    joiners: flume::Receiver<Joiner>,
    /// Takes connections as long as the node lives.
    listening: JoinSet<()>,
    ours: Option<Ours>,
    answers: (flume::Sender<Answer>, flume::Receiver<Answer>),
    /// States on their way from the thread that compresses them, by their digest.
    images: (flume::Sender<Compressed>, flume::Receiver<Compressed>),
    /// The guest's thread has been asked for its state and has not answered.
    image_asked: bool,
    peer: Option<Peer>,
    status: Status,
    /// Who waits for the guest's end.
    stoppers: Vec<oneshot::Sender<()>>,
    ending: Option<Ended>,
    journal_ended: bool,
    outcome: Option<Outcome>,
    /// Bytes of peers that are gone.
    carried: u64,
}

/// A state as bytes, and its digest.
type Compressed = (Digest, Vec<u8>);

/// What the loop woke up for.
enum Event {
    Entry(Entry),
    JournalEnded,
    Image(Digest, Vec<u8>),
    Acknowledged(Ack),
    Ready(Ready),
    Diverged(Position, String),
    /// The secondary said something that ends the link.
    Unwelcome(String),
    LinkError(LinkError),
    Flushed,
    Joiner(Joiner),
    Answer(Answer),
    Command(Command),
    GuestEnded(Option<Result<Ended, RecordError>>),
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
        let mut node = Node {
            guest,
            me,
            config,
            encoder: Encoder::new(start),
            archive,
            protocol: None,
            arbiter: None,
            joiners: flume::bounded(0).1,
            listening: JoinSet::new(),
            ours: None,
            answers: flume::bounded(1),
            images: flume::bounded(1),
            image_asked: false,
            peer: None,
            status: Status { term: start.term, ..Status::default() },
            stoppers: Vec::new(),
            ending: None,
            journal_ended: false,
            outcome: None,
            carried: 0,
        };
        if let Some((cluster, fingerprint)) = cluster {
            let record = cluster.record;
            let ours = Ours { vm: record.vm, node: me, term: record.term, fingerprint };
            if let Some(listener) = cluster.listener {
                (node.listening, node.joiners) = cluster::listen(listener, ours.clone());
            }
            node.ours = Some(ours);
            node.protocol = Some(Protocol::new(me, record, cluster.timing));
            node.arbiter = Some(cluster.arbiter);
        }
        node
    }

    /// Runs until the guest has ended, here and on record, or another node runs it.
    ///
    /// # Errors
    /// If the guest's machine, the log or the recording fails.
    pub async fn run(mut self, commands: flume::Receiver<Command>) -> Result<Outcome, NodeError> {
        while self.outcome.is_none() {
            let event = self.wait(&commands).await;
            self.handle(event).await?;
            self.finish_if_done();
        }
        self.say_goodbye().await;
        if let Some(archive) = self.archive.take() {
            archive.close()?;
        }
        for stopper in self.stoppers.drain(..) {
            // Who asked may be gone.
            let _ = stopper.send(());
        }
        Ok(self.outcome.expect("the loop ends with an outcome"))
    }

    async fn wait(&mut self, commands: &flume::Receiver<Command>) -> Event {
        let now = boot_time();
        let wake_at = self.protocol.as_ref().and_then(Protocol::wake_at);
        let sleep = wake_at.map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
        let disk_behind = self.archive.as_ref().is_some_and(|archive| !archive.has_room());
        let has_room = !disk_behind && self.peer.as_ref().is_none_or(Peer::has_room);
        let journal = self.guest.journal.entries();
        let (sender, receiver) = Peer::halves(self.peer.as_mut());
        // Batches go out before more is encoded, unless more is here already: then one write serves for all of it.
        let settled = journal.is_empty() || !has_room || sender.as_ref().is_some_and(|s| s.queued() >= WRITE);
        tokio::select! {
            biased;
            message = receive_or_wait(receiver) => message.map_or_else(Event::LinkError, |message| self::read(&message)),
            answer = self.answers.1.recv_async() => answer.map_or(Event::Tick, Event::Answer),
            Ok((digest, bytes)) = self.images.1.recv_async() => Event::Image(digest, bytes),
            flushed = flush_or_wait(sender), if settled => flushed.map_or_else(Event::LinkError, |()| Event::Flushed),
            entry = journal.recv_async(), if has_room && !self.journal_ended => {
                entry.map_or(Event::JournalEnded, Event::Entry)
            }
            Ok(joiner) = self.joiners.recv_async() => Event::Joiner(joiner),
            Ok(command) = commands.recv_async() => Event::Command(command),
            ended = &mut self.guest.ended, if self.ending.is_none() => Event::GuestEnded(ended.ok()),
            () = tokio::time::sleep(DISK_BEHIND), if disk_behind => Event::Tick,
            () = tokio::time::sleep(sleep) => Event::Tick,
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), NodeError> {
        match event {
            Event::Entry(Entry::Batch(batch, mark)) => self.batch(batch, mark)?,
            Event::Entry(Entry::Image(image)) => self.image(image)?,
            Event::Image(digest, bytes) => self.send_image(digest, &bytes),
            Event::JournalEnded => self.journal_ended = true,
            Event::GuestEnded(ended) => self.ending = Some(ended.ok_or(NodeError::GuestDied)??),
            Event::Flushed => {}
            Event::Acknowledged(ack) => self.input(Input::Acknowledged(ack)),
            Event::Ready(ready) => self.ready(&ready),
            Event::Diverged(at, text) => {
                tracing::error!("the secondary has diverged at position {at}: {text}");
                self.input(Input::Diverged);
            }
            Event::Unwelcome(why) => self.link_lost(&why),
            Event::LinkError(error) => self.link_lost(&error.to_string()),
            Event::Joiner(joiner) => self.joiner(joiner).await,
            Event::Answer(Ok(())) => self.input(Input::Won),
            Event::Answer(Err(present)) => self.input(Input::Lost(present)),
            Event::Command(Command::Status(reply)) => {
                // Who asked may be gone.
                let _ = reply.send(self.status());
            }
            Event::Command(Command::Stop(reply)) => {
                self.stoppers.push(reply);
                self.ask(Request::Stop);
            }
            Event::Tick => self.input(Input::Tick),
        }
        Ok(())
    }

    /// A batch of the log: encodes it for everyone who wants it.
    fn batch(&mut self, batch: Batch, mark: Mark) -> Result<(), NodeError> {
        let following = self.peer.as_ref().is_some_and(|peer| peer.following);
        if !following && self.archive.is_none() {
            self.guest.journal.recycle(batch);
            return Ok(());
        }
        let encoded = self.encoder.encode(&batch, mark)?;
        let (head, body) = (encoded.head, encoded.body);
        self.status.log_bytes += body.len() as u64;
        self.status.batches += 1;
        self.status.watermark = mark.watermark;
        let mut lost = None;
        if following && let Some(peer) = &mut self.peer {
            lost = peer.send_batch(head.sequence, body).err();
        }
        let checkpoint = batch.records().find_map(|record| match record.what {
            LogRecord::Checkpoint(digest) => Some((record.at, digest)),
            _ => None,
        });
        let archived = match &self.archive {
            Some(archive) => {
                let archived = archive.append(head, batch, body);
                if let Some(spare) = archive.spare() {
                    self.guest.journal.recycle(spare);
                }
                archived
            }
            None => {
                self.guest.journal.recycle(batch);
                Ok(())
            }
        };
        if archived.is_err() {
            return Err(self.archive_failed());
        }
        if let Some(error) = lost {
            self.link_lost(&error.to_string());
        }
        if following {
            self.input(Input::Sent(head.sequence, mark.watermark));
            self.drop_slow_joiner();
        }
        if let Some((at, digest)) = checkpoint {
            self.checkpoint(at, digest)?;
        }
        Ok(())
    }

    /// A secondary that protects the guest may hold it up, for a while. One that is still joining may not.
    fn drop_slow_joiner(&mut self) {
        let joining = matches!(self.protocol.as_ref().map(Protocol::state), Some(State::Joining(_)));
        if joining && !self.peer.as_ref().is_none_or(Peer::has_room) {
            self.link_lost("it takes the log more slowly than it grows");
        }
    }

    /// A checkpoint ends its segment, so that a replay can begin behind it.
    fn checkpoint(&mut self, at: Position, digest: Digest) -> Result<(), NodeError> {
        self.status.last_checkpoint = Some((at, digest));
        let start = self.encoder.next_segment(self.status.term);
        if let Some(archive) = &self.archive
            && archive.begin(start).is_err()
        {
            return Err(self.archive_failed());
        }
        if let Some(peer) = self.peer.as_mut().filter(|peer| peer.following)
            && let Err(error) = peer.send_start(start)
        {
            self.link_lost(&error.to_string());
        }
        Ok(())
    }

    /// The state that a joining secondary was promised. The log that it gets begins with a segment of its own.
    fn image(&mut self, image: Box<Image>) -> Result<(), NodeError> {
        self.image_asked = false;
        // Who asked for it may be gone, or have got one that was asked for before.
        let Some(peer) = self.peer.as_mut().filter(|peer| peer.awaits_image()) else { return Ok(()) };
        let mut start = self.encoder.next_segment(self.status.term);
        if self.archive.is_none() {
            // Nobody was given what came before.
            start.position = image.position();
            self.encoder = Encoder::new(start);
        }
        peer.promise_image(image.position(), image.digest, start);
        if let Some(archive) = &self.archive
            && archive.begin(start).is_err()
        {
            return Err(self.archive_failed());
        }
        // Compressing all of RAM takes its time, and the heartbeats must go on.
        let images = self.images.0.clone();
        tokio::task::spawn_blocking(move || {
            // Nobody to take it means that the node is ending.
            let _ = images.send((image.digest, image.to_bytes()));
        });
        Ok(())
    }

    /// The state is ready to be sent, if the one to whom it was promised is still there.
    fn send_image(&mut self, digest: Digest, bytes: &[u8]) {
        let config = self.config.clone();
        let promised = |peer: &&mut Peer| peer.announced.is_some_and(|(_, announced)| announced == digest);
        if let Some(peer) = self.peer.as_mut().filter(promised)
            && let Err(error) = peer.send_image(bytes, config)
        {
            self.link_lost(&error.to_string());
        }
    }

    /// The secondary has loaded the state: is it the one that it was given?
    fn ready(&mut self, ready: &Ready) {
        let announced = self.peer.as_ref().and_then(|peer| peer.announced);
        if announced == Some((ready.position, ready.digest)) {
            self.input(Input::Ready);
        } else {
            self.link_lost("it is ready with another state than it was given");
        }
    }

    /// Somebody said hello.
    async fn joiner(&mut self, (hello, mut link): Joiner) {
        let (Some(protocol), Some(ours)) = (&self.protocol, &self.ours) else { return };
        let resume = self.resumption(&hello.node, hello.resume);
        let suspicion = protocol.timing().suspicion;
        let refusal = if Duration::from_millis(hello.suspicion_ms) < suspicion {
            // It could take over while this node's effects may still leave.
            Some(format!("its suspicion time is shorter than this primary's, {} ms", suspicion.as_millis()))
        } else if !protocol.welcomes(hello.node, resume.is_some()) || hello.node == self.me {
            Some("there is a secondary already, or it is being replaced".to_owned())
        } else {
            None
        };
        if let Some(text) = refusal {
            let _ = tokio::time::timeout(COURTESY, refuse(&mut link, RefuseCode::Busy, text)).await;
            return;
        }
        if let Err(error) = welcome(&mut link, ours, resume.is_some(), COURTESY).await {
            tracing::warn!("a secondary that joined is gone again: {error}");
            return;
        }
        match resume {
            Some(resume) => {
                let resumed = self.peer.as_mut().map(|peer| peer.resume(link, resume));
                self.input(Input::Resumed(hello.node));
                if let Some(Err(error)) = resumed {
                    self.link_lost(&error.to_string());
                }
            }
            None => {
                tracing::info!("secondary {} joins", hello.node);
                self.forget_peer();
                self.peer = Some(Peer::new(hello.node, link));
                self.input(Input::Joined(hello.node));
            }
        }
    }

    /// Where a secondary goes on that has only lost its connection.
    fn resumption(&self, node: &NodeId, resume: Option<Resume>) -> Option<Resume> {
        let peer = self.peer.as_ref().filter(|peer| peer.node == *node)?;
        resume.filter(|resume| peer.can_resume(*resume))
    }

    fn link_lost(&mut self, why: &str) {
        if let Some(peer) = self.peer.as_mut().filter(|peer| peer.is_connected()) {
            tracing::warn!("the link to the secondary is lost: {why}");
            peer.disconnect();
            self.input(Input::LinkLost);
        }
    }

    /// Lets the protocol decide, and does what it says.
    fn input(&mut self, input: Input) {
        let Some(protocol) = &mut self.protocol else { return };
        if let Input::Acknowledged(ack) = input
            && let Some(peer) = &mut self.peer
        {
            peer.forget_before(ack.sequence);
        }
        if input == Input::Diverged {
            self.status.divergences += 1;
        }
        let mut actions = Vec::new();
        protocol.step(boot_time(), input, &mut actions);
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let gate = &self.guest.gate;
        match action {
            Action::SendImage => {
                // One is enough: whoever waits for it when it comes gets it.
                if !std::mem::replace(&mut self.image_asked, true) {
                    self.ask(Request::Image);
                }
            }
            Action::CompareAndSet { from, to } => {
                if let Some(arbiter) = &self.arbiter {
                    cluster::compare_and_set(arbiter.clone(), from, to, self.answers.0.clone());
                }
            }
            Action::Protect => {
                let from = self.guest.gate.require(Required { peer: true, disk: false });
                tracing::info!("protected: the secondary may take over from position {from}");
                self.send(&Message::Grant(from));
                self.guest.signals.hold.store(false, Ordering::Release);
                self.guest.signals.bell.ring();
            }
            Action::Unprotect => {
                tracing::warn!("the secondary is lost: the guest goes on unprotected");
                gate.require(Required::default());
            }
            Action::Forget => self.forget_peer(),
            Action::Acknowledge(watermark) => {
                self.status.acknowledged = watermark;
                gate.acknowledge(Source::Peer, watermark);
            }
            Action::Renew(until) => gate.renew(Lease { until }),
            Action::Heartbeat(stamp) => {
                let watermark = self.status.watermark;
                let released = gate.released(watermark);
                let stamp = u64::try_from(stamp.as_nanos()).unwrap_or(u64::MAX);
                self.send(&Message::Heartbeat(Heartbeat { stamp, watermark, released }));
            }
            Action::Throttle(throttle) => {
                self.guest.signals.throttle.store(throttle, Ordering::Release);
                self.guest.signals.bell.ring();
            }
            Action::CloseLink(why) => {
                tracing::warn!("the secondary is disconnected: {why}");
                if let Some(peer) = &mut self.peer {
                    peer.disconnect();
                }
            }
            Action::Halt(record) => {
                gate.fence();
                // Whatever it still does is nobody's.
                self.ask(Request::Stop);
                self.outcome = Some(Outcome::Fenced(record));
            }
            Action::Finish => self.outcome = self.ending.take().map(Outcome::Ended),
        }
    }

    fn send(&mut self, message: &Message<'_>) {
        if let Some(Err(error)) = self.peer.as_mut().map(|peer| peer.send(message)) {
            self.link_lost(&error.to_string());
        }
    }

    /// Asks the guest's thread for something.
    fn ask(&self, request: Request) {
        // A thread that is gone, or busy with as many requests, will be noticed elsewhere.
        let _ = self.guest.requests.try_send(request);
        self.guest.signals.pause.store(true, Ordering::Release);
        self.guest.signals.bell.ring();
    }

    fn forget_peer(&mut self) {
        if let Some(peer) = self.peer.take() {
            self.carried += peer.bytes();
        }
    }

    /// The guest has ended: once its last effects have left, that goes on record.
    fn finish_if_done(&mut self) {
        if self.ending.is_none() || !self.journal_ended || self.guest.gate.holds() {
            return;
        }
        match &self.protocol {
            Some(protocol) if !matches!(protocol.state(), State::Ending | State::Ended) => {
                self.input(Input::End)
            }
            Some(_) => {}
            None => self.outcome = self.ending.take().map(Outcome::Ended),
        }
    }

    /// Tells the secondary that the guest has ended. Who is not the primary any more has nothing to say.
    async fn say_goodbye(&mut self) {
        let (Some(peer), Some(Outcome::Ended(ended))) = (&mut self.peer, &self.outcome) else { return };
        let text = if let Ended::Stopped = ended { "the guest was stopped" } else { "the guest has ended" };
        let _ = peer.send(&Message::Bye(text.to_owned()));
        let _ = tokio::time::timeout(COURTESY, flush_or_wait(Peer::halves(Some(peer)).0)).await;
    }

    /// The archive's thread has ended: with which error?
    fn archive_failed(&mut self) -> NodeError {
        match self.archive.take().map(Archive::close) {
            Some(Err(error)) => error.into(),
            _ => NodeError::GuestDied,
        }
    }

    fn status(&self) -> Status {
        let gate = self.guest.gate.counters();
        let now = boot_time();
        let state = self.protocol.as_ref().map_or(State::Solo, Protocol::state);
        let required = matches!(state, State::Protected(..) | State::Leaving(_));
        Status {
            acknowledged: if required { self.status.acknowledged } else { self.status.watermark },
            position: Position(self.guest.signals.position.load(Ordering::Relaxed)),
            lag_ms: self.protocol.as_ref().map_or(0, |protocol| protocol.lag(now).as_millis() as u64),
            protected: matches!(state, State::Protected(..)),
            mode: mode(state).to_owned(),
            guest_rx_bytes: self.guest.signals.received.load(Ordering::Relaxed),
            guest_tx_bytes: gate.frame_bytes,
            held: gate.held,
            link_bytes: self.carried + self.peer.as_ref().map_or(0, Peer::bytes),
            ..self.status.clone()
        }
    }
}

fn mode(state: State) -> &'static str {
    match state {
        State::Solo => "solo",
        State::Joining(_) => "joining",
        State::Granting(_) => "granting",
        State::Protected(_, true) => "protected",
        State::Protected(_, false) => "protected, link lost",
        State::Leaving(_) => "leaving",
        State::Ending => "ending",
        State::Ended => "ended",
        State::Fenced => "fenced",
    }
}

/// What a message of the secondary means.
fn read(message: &Message<'_>) -> Event {
    match message {
        Message::Ack(ack) => Event::Acknowledged(*ack),
        Message::Ready(ready) => Event::Ready(*ready),
        Message::Diverged(diverged) => Event::Diverged(diverged.position, diverged.text.clone()),
        Message::Bye(text) => Event::Unwelcome(format!("it says goodbye: {text}")),
        _ => Event::Unwelcome("it said something that only a primary says".to_owned()),
    }
}
