//! Everything that a primary decides: the protocol, the log as it goes to those who want it, and the gate's bookkeeping.
//!
//! There is no socket, clock or task in here. Messages, answers and the time come in, messages are queued and
//! [`Order`]s go out; the node around it, or a simulator, moves bytes and fires timers.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use echovisor_event::{Digest, Position};
use echovisor_log::{
    Batch, Compression, EncodeError, Encoder, Head, Mark, SegmentStart,
    arbiter::{Answer, Question, Record},
    link::{
        Address, HandOver, Heartbeat, Hello, Message, Ours, Ready, Refuse, RefuseCode, Resume, Sender,
        SyncAsk, welcome,
    },
};
use echovisor_snapshot::sync::Source;

use super::{
    giving::Giving,
    peer::Peer,
    protocol::{Action, Input, Protocol, State, Step, Timing},
    status::Status,
};
use crate::gate::Gate;

/// What the engine wants of its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask the guest's thread for its state, and hand its position to [`Engine::promise`].
    TakeImage,
    /// Ask the arbiter, and hand its answer to [`Engine::answered`].
    Ask(Question),
    /// The guest is protected: one that was held until then may start.
    Start,
    /// Let the guest wait, or run again.
    Throttle(bool),
    /// Ask the guest's thread to stand still behind a checkpoint, and hand that with this number to [`Engine::paused`].
    Pause(u64),
    /// Let it go on.
    Resume,
    /// The guest is not handed over to the secondary, and why.
    Keep(&'static str),
    /// Another primary runs the guest: stop. Nothing leaves the gate any more.
    Halt(Record),
    /// The guest's end is on record: say [goodbye](Engine::say_goodbye).
    Finish,
}

/// A part of the log that has been encoded, for the disk.
pub struct Encoded {
    /// The batch's place in the log.
    pub head: Head,
    /// The digests in it.
    pub digests: Vec<(Position, Digest)>,
    /// Its bytes.
    pub body: Vec<u8>,
    /// The segment that begins behind it, if one does.
    pub next: Option<SegmentStart>,
}

/// A state that a secondary has been promised.
pub struct Promise {
    /// The segment that begins behind it.
    pub start: SegmentStart,
    /// To be handed to [`Engine::give`] with the state.
    pub ticket: Ticket,
}

/// Which promise a state keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The primary, without its surroundings.
pub struct Engine {
    gate: Arc<Gate>,
    /// The machine's configuration, for those who join.
    config: Vec<u8>,
    encoder: Encoder,
    compression: Compression,
    /// Whether the log is kept on disk, and so encoded also while nobody follows.
    archived: bool,
    /// `None` for a guest that nobody can join.
    replication: Option<(Protocol, Ours)>,
    peer: Option<Peer>,
    /// The guest's thread has been asked for its state and has not answered.
    image_asked: bool,
    /// The last state that was promised.
    ticket: Ticket,
    /// How often the guest was asked to stand still.
    pauses: u64,
    /// Where the guest stands still, with the digest of its state.
    paused: Option<(Position, Digest)>,
    /// Where the secondary will listen when it runs the guest, if it has just said so.
    listens: Option<Address>,
    status: Status,
    orders: VecDeque<Order>,
}

impl Engine {
    /// An engine for the guest behind `gate`, whose log begins at `start`, and is kept on disk if it is `archived`. Secondaries
    /// join it under `replication`: the record by which this node runs the guest, and how long things take.
    #[must_use]
    pub fn new(
        gate: Arc<Gate>,
        config: Vec<u8>,
        start: SegmentStart,
        archived: bool,
        replication: Option<(Ours, Record, Timing)>,
    ) -> Engine {
        Engine {
            gate,
            config,
            encoder: Encoder::new(start),
            compression: Compression::default(),
            archived,
            replication: replication
                .map(|(ours, record, timing)| (Protocol::new(ours.node, record, timing), ours)),
            peer: None,
            image_asked: false,
            ticket: Ticket(0),
            pauses: 0,
            paused: None,
            listens: None,
            status: Status { term: start.term, ..Status::default() },
            orders: VecDeque::new(),
        }
    }

    /// Compresses the log, which begins at `start`, more or less.
    #[must_use]
    pub fn compressing(self, start: SegmentStart, compression: Compression) -> Engine {
        Engine { encoder: Encoder::with(start, compression), compression, ..self }
    }

    /// Whether anybody keeps the log or follows it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.archived || self.peer.is_some()
    }

    /// What is to be done next; ask after each call until there is nothing.
    pub fn order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When to call [`Engine::tick`], if nothing else is called before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.protocol().and_then(Protocol::wake_at)
    }

    /// How the guest is protected.
    #[must_use]
    pub fn state(&self) -> State {
        self.protocol().map_or(State::Solo, Protocol::state)
    }

    /// Where what is queued waits to be written; `None` while nobody is connected. Who was connected before must be
    /// disconnected then.
    pub fn sender(&mut self) -> Option<&mut Sender> {
        self.peer.as_mut().and_then(Peer::sender)
    }

    /// Whether the log may grow: what is not acknowledged, or not even taken by the socket, is bounded.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.peer.as_ref().is_none_or(Peer::has_room)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.input(now, Input::Tick);
        self.look_whether_quiet(now);
    }

    /// The operator wants the secondary to become the primary: ends in [`Order::Halt`], or in [`Order::Keep`].
    pub fn hand_over(&mut self, now: Duration) {
        if self.replication.is_none() {
            self.orders.push_back(Order::Keep("no secondary can join this node, which does not listen"));
        }
        self.input(now, Input::HandOver);
    }

    /// The guest stands still at `position`, as [`Order::Pause`] with this number asked for, behind a checkpoint with this digest,
    /// and all of its log was handed over.
    pub fn paused(&mut self, now: Duration, number: u64, position: Position, digest: Digest) {
        // It goes on already if that was taken back meanwhile.
        if number == self.pauses && self.is_pausing() {
            self.paused = Some((position, digest));
            self.look_whether_quiet(now);
        }
    }

    /// A guest that stands still makes no more effects: when the last has left, nothing can leave any more.
    fn look_whether_quiet(&mut self, now: Duration) {
        if self.paused.is_some() && self.is_pausing() && !self.gate.holds() {
            self.input(now, Input::Quiet);
        }
    }

    /// Whether the guest stands still for the secondary to go on with it.
    #[must_use]
    pub fn has_handed_over(&self) -> bool {
        self.paused.is_some()
    }

    fn is_pausing(&self) -> bool {
        matches!(self.state(), State::Handing(_, Step::Pausing))
    }

    /// A batch of the log: encodes it for everyone who wants it. What the disk is to keep is returned.
    ///
    /// # Errors
    /// If the batch does not continue the log.
    pub fn batch(
        &mut self,
        now: Duration,
        batch: &Batch,
        mark: Mark,
    ) -> Result<Option<Encoded>, EncodeError> {
        let following = self.peer.as_ref().is_some_and(|peer| peer.following);
        if !following && !self.archived {
            return Ok(None);
        }
        let encoded = self.encoder.encode(batch, mark)?;
        let (head, body) = (encoded.head, encoded.body);
        self.status.log_bytes += body.len() as u64;
        self.status.batches += 1;
        self.status.watermark = mark.watermark;
        let sent = match self.peer.as_mut().filter(|peer| peer.following) {
            Some(peer) => peer.send_batch(head.sequence, body),
            None => Ok(()),
        };
        let body = if self.archived { body.to_vec() } else { Vec::new() };
        if let Err(error) = sent {
            self.link_lost(now, &error.to_string());
        }
        if following {
            self.input(now, Input::Sent(head.sequence, mark.watermark));
            self.drop_slow_joiner(now);
        }
        let digests: Vec<_> = batch.digests().collect();
        self.status.last_checkpoint = digests.last().copied().or(self.status.last_checkpoint);
        let next = batch.ends_segment().then(|| self.end_segment(now));
        Ok(self.archived.then_some(Encoded { head, digests, body, next }))
    }

    /// A checkpoint ends its segment, so that a replay can begin behind it.
    fn end_segment(&mut self, now: Duration) -> SegmentStart {
        let start = self.encoder.next_segment(self.status.term);
        if let Some(peer) = self.peer.as_mut().filter(|peer| peer.following)
            && let Err(error) = peer.send_start(start)
        {
            self.link_lost(now, &error.to_string());
        }
        start
    }

    /// A secondary that protects the guest may hold it up, for a while. One that is still joining may not.
    fn drop_slow_joiner(&mut self, now: Duration) {
        if matches!(self.state(), State::Joining(_)) && !self.has_room() {
            self.link_lost(now, "it takes the log more slowly than it grows");
        }
    }

    /// The guest's state was taken at `position`, as [`Order::TakeImage`] asked for it. If there is still a secondary that
    /// waits for it, the log begins a segment here, and the state is expected by [`Engine::give`].
    pub fn promise(&mut self, position: Position) -> Option<Promise> {
        self.image_asked = false;
        // Who asked for it may be gone, or have got one that was asked for before.
        let peer = self.peer.as_mut().filter(|peer| peer.awaits_state())?;
        let mut start = self.encoder.next_segment(self.status.term);
        if !self.archived && !peer.following {
            // Nobody was given what came before.
            start.position = position;
            self.encoder = Encoder::with(start, self.compression);
        }
        self.ticket.0 += 1;
        peer.promise(position, start);
        Some(Promise { start, ticket: self.ticket })
    }

    /// The state that was promised under `ticket`; nobody may want it any more.
    pub fn give(&mut self, now: Duration, ticket: Ticket, source: Source) {
        if ticket != self.ticket {
            return;
        }
        let config = self.config.clone();
        if let Some(peer) = &mut self.peer
            && let Err(error) = peer.give(source, config)
        {
            self.link_lost(now, &error.to_string());
        }
    }

    /// What was queued has been written, or some of it: parts of a state may follow, which must not be in the way of the log.
    pub fn flushed(&mut self, now: Duration) {
        if let Some(Err(unfit)) = self.peer.as_mut().map(Peer::answer) {
            self.link_lost(now, &unfit.to_string());
        }
    }

    /// Somebody who fits to this guest said hello. Queues the answer: a welcome, and then the link belongs to the engine; or a
    /// refusal, behind which the returned link is to be closed.
    ///
    /// # Errors
    /// If the secondary is not taken.
    pub fn hello(&mut self, now: Duration, hello: &Hello, mut sender: Sender) -> Result<(), Sender> {
        let Some((protocol, ours)) = &self.replication else { return Err(sender) };
        let resume = self.resumption(hello);
        let suspicion = protocol.timing().suspicion;
        let refusal = if Duration::from_millis(hello.suspicion_ms) < suspicion {
            // It could take over while this node's effects may still leave.
            Some(format!("its suspicion time is shorter than this primary's, {} ms", suspicion.as_millis()))
        } else if !protocol.welcomes(hello.node, resume.is_some()) || hello.node == ours.node {
            Some("there is a secondary already, or it is being replaced".to_owned())
        } else {
            None
        };
        let answer = match refusal {
            Some(text) => Message::Refuse(Refuse { code: RefuseCode::Busy, text }),
            None => Message::Welcome(welcome(ours, resume.is_some())),
        };
        if sender.queue(&answer).is_err() || matches!(answer, Message::Refuse(_)) {
            return Err(sender);
        }
        match resume {
            Some(resume) => {
                let resumed = self.peer.as_mut().map(|peer| peer.resume(sender, resume));
                self.input(now, Input::Resumed(hello.node));
                if let Some(Err(error)) = resumed {
                    self.link_lost(now, &error.to_string());
                }
            }
            None => {
                tracing::info!("secondary {} joins", hello.node);
                self.peer = Some(Peer::new(hello.node, sender));
                self.input(now, Input::Joined(hello.node));
            }
        }
        Ok(())
    }

    /// Where a secondary goes on that has only lost its connection.
    fn resumption(&self, hello: &Hello) -> Option<Resume> {
        let peer = self.peer.as_ref().filter(|peer| peer.node == hello.node)?;
        hello.resume.filter(|resume| peer.can_resume(*resume))
    }

    /// The secondary said something.
    pub fn message(&mut self, now: Duration, message: &Message<'_>) {
        match message {
            Message::Ack(ack) => {
                if let Some(peer) = &mut self.peer {
                    peer.forget_before(ack.sequence);
                }
                self.input(now, Input::Acknowledged(*ack));
                self.look_whether_quiet(now);
            }
            Message::SyncAsk(ask) => self.ask(now, ask),
            Message::Ready(ready) => self.ready(now, ready),
            Message::Diverged(diverged) => {
                tracing::error!(
                    "the secondary has diverged at position {}: {}",
                    diverged.position,
                    diverged.text
                );
                self.status.divergences += 1;
                self.input(now, Input::Diverged);
            }
            Message::Promote => {
                tracing::info!("the secondary is to become the primary");
                self.input(now, Input::HandOver);
            }
            Message::Listens(address) => match address.parse() {
                Ok(address) => self.listens = Some(address),
                Err(error) => tracing::warn!("where the secondary listens: {error}"),
            },
            Message::Bye(text) => self.link_lost(now, &format!("it says goodbye: {text}")),
            _ => self.link_lost(now, "it said something that only a primary says"),
        }
    }

    /// Where the secondary will listen when it runs the guest, if it has said so since this was asked last.
    pub fn take_listens(&mut self) -> Option<Address> {
        self.listens.take()
    }

    /// The secondary has loaded the state: is it the one that it was given? Then the log goes on.
    fn ready(&mut self, now: Duration, ready: &Ready) {
        let announced = self.peer.as_ref().and_then(|peer| peer.announced);
        if announced != Some((ready.position, ready.digest)) {
            return self.link_lost(now, "it is ready with another state than it was given");
        }
        let Some(peer) = &mut self.peer else { return };
        if let Some(giving) = peer.giving() {
            let (sent, size) = (giving.progress().0, giving.memory_size());
            tracing::info!(
                "the secondary has the state at position {}: of {size} bytes of memory {sent} were sent, in {} bytes",
                ready.position,
                giving.bytes()
            );
        }
        match peer.go_on() {
            Ok(()) => self.input(now, Input::Ready),
            Err(error) => self.link_lost(now, &error.to_string()),
        }
    }

    /// The secondary asks for a part of its state.
    fn ask(&mut self, now: Duration, ask: &SyncAsk) {
        self.input(now, Input::Asked);
        let Some(peer) = &mut self.peer else { return };
        if let Err(unfit) = peer.ask(ask).and_then(|()| peer.answer()) {
            self.link_lost(now, &unfit.to_string());
        }
    }

    /// The link is of no use any more.
    pub fn link_lost(&mut self, now: Duration, why: &str) {
        if let Some(peer) = self.peer.as_mut().filter(|peer| peer.is_connected()) {
            tracing::warn!("the link to the secondary is lost: {why}");
            peer.disconnect();
            self.input(now, Input::LinkLost);
        }
    }

    /// The arbiter has answered.
    pub fn answered(&mut self, now: Duration, answer: Answer) {
        match answer {
            Answer::Won(_) => self.input(now, Input::Won),
            Answer::Lost(present) => self.input(now, Input::Lost(present)),
        }
    }

    /// The guest has ended, all its log was handed over, and all its effects have left: that goes on record. May be called
    /// again.
    pub fn end(&mut self, now: Duration) {
        match self.protocol().map(Protocol::state) {
            Some(State::Ending | State::Ended | State::Fenced) => {}
            Some(_) => self.input(now, Input::End),
            None => self.orders.push_back(Order::Finish),
        }
    }

    /// Tells the secondary that the guest has ended.
    pub fn say_goodbye(&mut self, text: &str) {
        if let Some(peer) = &mut self.peer {
            // Who is not there any more is told by the arbiter's record.
            let _ = peer.send(&Message::Bye(text.to_owned()));
        }
    }

    /// Lets the protocol decide, and does what it says.
    fn input(&mut self, now: Duration, input: Input) {
        let Some((protocol, _)) = &mut self.replication else { return };
        let mut actions = Vec::new();
        protocol.step(now, input, &mut actions);
        for action in actions {
            self.act(now, action);
        }
    }

    fn act(&mut self, now: Duration, action: Action) {
        match action {
            Action::SendImage => {
                self.peer.iter_mut().for_each(Peer::heal);
                // One is enough: whoever waits for it when it comes gets it.
                if !std::mem::replace(&mut self.image_asked, true) {
                    self.orders.push_back(Order::TakeImage);
                }
            }
            Action::CompareAndSet { from, to } => {
                self.orders.push_back(Order::Ask(Question::Replace { from, to }));
            }
            Action::Protect(lease) => {
                let from = self.gate.protect(lease);
                tracing::info!("protected: the secondary may take over from position {from}");
                self.send(now, &Message::Grant(from));
                self.orders.push_back(Order::Start);
            }
            Action::Unprotect => {
                tracing::warn!("the secondary is lost: the guest goes on unprotected");
                self.gate.unprotect();
            }
            Action::Forget => self.peer = None,
            Action::Acknowledge(watermark) => {
                self.status.acknowledged = watermark;
                self.gate.acknowledge(watermark);
            }
            Action::Renew(lease) => self.gate.renew(lease),
            Action::Heartbeat(stamp) => {
                let watermark = self.status.watermark;
                let released = self.gate.released(watermark);
                let stamp = u64::try_from(stamp.as_nanos()).unwrap_or(u64::MAX);
                let heartbeat = Message::Heartbeat(Heartbeat { stamp, watermark, released });
                if let Some(Err(error)) = self.peer.as_mut().map(|peer| peer.send_first(&heartbeat)) {
                    self.link_lost(now, &error.to_string());
                }
            }
            Action::Throttle(throttle) => self.orders.push_back(Order::Throttle(throttle)),
            Action::Pause => {
                self.pauses += 1;
                self.orders.push_back(Order::Pause(self.pauses));
            }
            Action::Resume => {
                self.paused = None;
                self.orders.push_back(Order::Resume);
            }
            Action::HandOver => {
                if let Some((position, digest)) = self.paused {
                    tracing::info!("the guest stands still at {position}, for the secondary to go on");
                    self.send(now, &Message::HandOver(HandOver { position, digest }));
                }
            }
            Action::Keep(why) => {
                tracing::warn!("the guest is not handed over: {why}");
                self.send(now, &Message::Keep(why.to_owned()));
                self.orders.push_back(Order::Keep(why));
            }
            Action::CloseLink(why) => {
                tracing::warn!("the secondary is disconnected: {why}");
                if let Some(peer) = &mut self.peer {
                    peer.disconnect();
                }
            }
            Action::Halt(record) => {
                self.gate.fence();
                self.orders.push_back(Order::Halt(record));
            }
            Action::Finish => self.orders.push_back(Order::Finish),
        }
    }

    fn send(&mut self, now: Duration, message: &Message<'_>) {
        if let Some(Err(error)) = self.peer.as_mut().map(|peer| peer.send(message)) {
            self.link_lost(now, &error.to_string());
        }
    }

    fn protocol(&self) -> Option<&Protocol> {
        self.replication.as_ref().map(|(protocol, _)| protocol)
    }

    /// How the primary is, as far as the engine knows.
    #[must_use]
    pub fn status(&self, now: Duration) -> Status {
        let gate = self.gate.counters();
        let state = self.state();
        let protected = matches!(state, State::Protected(..) | State::Handing(..));
        let required = protected || matches!(state, State::Leaving(_));
        Status {
            acknowledged: if required { self.status.acknowledged } else { self.status.watermark },
            lag_ms: self.protocol().map_or(0, |protocol| protocol.lag(now).as_millis() as u64),
            protected,
            mode: mode(state).to_owned(),
            joining: self.peer.as_ref().and_then(Peer::giving).map(Giving::progress),
            guest_tx_bytes: gate.frame_bytes,
            held: gate.held,
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
        State::Handing(..) => "handing over",
        State::Leaving(_) => "leaving",
        State::Ending => "ending",
        State::Ended => "ended",
        State::Fenced => "fenced",
    }
}
