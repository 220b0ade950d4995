//! The secondary at the other end of the link: the state that it is given, and what must be sent to it again if the link
//! breaks.

use std::collections::VecDeque;

use echovisor_event::{Digest, NodeId, Position};
use echovisor_log::{
    SegmentStart,
    link::{LinkError, Message, Resume, Sender, SyncAsk},
};
use echovisor_snapshot::sync::Source;

use super::giving::{Giving, Unfit};

/// Bytes of the log that are kept for a secondary that may come back, or that wait for its socket. Beyond this the guest
/// waits.
const BACKLOG_MAX: usize = 64 << 20;

/// What was sent and may have to be sent again.
enum Sent {
    Start(SegmentStart),
    Batch(u64, Vec<u8>),
}

impl Sent {
    fn message(&self) -> Message<'_> {
        match self {
            Sent::Start(start) => Message::SegmentStart(*start),
            Sent::Batch(_, body) => Message::Batch(body),
        }
    }
}

/// How far the peer is with the state that it needs.
enum Stage {
    /// The guest's thread has been asked for one.
    Wanted,
    /// It was taken, and the log behind it waits; it may not be ready to be given yet.
    Given(Option<Box<Giving>>),
    /// It has it, and follows.
    Following,
}

/// The secondary, connected or expected back.
pub(super) struct Peer {
    pub(super) node: NodeId,
    sender: Option<Sender>,
    stage: Stage,
    /// Whether batches are for this peer. One that is healed goes on with its log until a state is there.
    pub(super) following: bool,
    /// Number of the batch after the last one that was sent.
    next: u64,
    /// The state that it is given: position and digest.
    pub(super) announced: Option<(Position, Digest)>,
    /// All batches from this one on are kept.
    oldest: u64,
    kept: VecDeque<Sent>,
    kept_bytes: usize,
}

impl Peer {
    /// A secondary that needs a state.
    pub(super) fn new(node: NodeId, sender: Sender) -> Peer {
        Peer {
            node,
            sender: Some(sender),
            stage: Stage::Wanted,
            following: false,
            next: 0,
            announced: None,
            oldest: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// It follows, but its state is not the right one: it needs another.
    pub(super) fn heal(&mut self) {
        self.stage = Stage::Wanted;
        self.announced = None;
    }

    /// Whether what `resume` asks for can still be sent.
    pub(super) fn can_resume(&self, resume: Resume) -> bool {
        matches!(self.stage, Stage::Following) && (self.oldest..=self.next).contains(&resume.sequence)
    }

    /// Goes on over a new connection, behind the batches that the secondary holds.
    pub(super) fn resume(&mut self, sender: Sender, resume: Resume) -> Result<(), LinkError> {
        self.forget_before(resume.sequence);
        let sender = self.sender.insert(sender);
        // The start of the segment in which it stopped is known to it.
        for sent in &self.kept {
            match sent {
                Sent::Start(start) if start.segment <= resume.segment => {}
                sent => sender.queue(&sent.message())?,
            }
        }
        Ok(())
    }

    /// The log that is for this peer begins at `start`, behind a state at `position`, which [`Peer::give`] will bring. It
    /// waits until the peer has that.
    pub(super) fn promise(&mut self, position: Position, start: SegmentStart) {
        self.following = true;
        self.stage = Stage::Given(None);
        self.oldest = start.sequence;
        self.next = start.sequence;
        self.announced = Some((position, Digest::default()));
        self.kept.clear();
        self.kept_bytes = 0;
        self.kept.push_back(Sent::Start(start));
    }

    /// Announces the state that was promised.
    pub(super) fn give(&mut self, source: Source, config: Vec<u8>) -> Result<(), LinkError> {
        let (Some(sender), Stage::Given(giving)) = (&mut self.sender, &mut self.stage) else { return Ok(()) };
        self.announced = Some((source.position(), source.digest()));
        let giving = giving.insert(Box::new(Giving::new(source)));
        sender.queue(&Message::SyncBegin(giving.announcement(config)))
    }

    /// The peer asks for a part of its state.
    pub(super) fn ask(&mut self, ask: &SyncAsk) -> Result<(), Unfit> {
        match &mut self.stage {
            Stage::Given(Some(giving)) => giving.ask(ask),
            _ => Err(Unfit::Unasked),
        }
    }

    /// Queues parts of the state, as many as may wait for the socket without being in the way.
    pub(super) fn answer(&mut self) -> Result<(), Unfit> {
        match (&mut self.sender, &mut self.stage) {
            (Some(sender), Stage::Given(Some(giving))) => giving.answer(sender),
            _ => Ok(()),
        }
    }

    /// The peer has its state: queues the log that waited.
    pub(super) fn go_on(&mut self) -> Result<(), LinkError> {
        self.stage = Stage::Following;
        match &mut self.sender {
            Some(sender) => self.kept.iter().try_for_each(|sent| sender.queue(&sent.message())),
            None => Ok(()),
        }
    }

    /// What it is being given, while it is.
    pub(super) fn giving(&self) -> Option<&Giving> {
        match &self.stage {
            Stage::Given(giving) => giving.as_deref(),
            _ => None,
        }
    }

    /// Queues the start of a segment.
    pub(super) fn send_start(&mut self, start: SegmentStart) -> Result<(), LinkError> {
        self.keep(Sent::Start(start))
    }

    /// Queues a batch, and keeps it until it is acknowledged.
    pub(super) fn send_batch(&mut self, sequence: u64, body: &[u8]) -> Result<(), LinkError> {
        self.kept_bytes += body.len();
        self.next = sequence + 1;
        self.keep(Sent::Batch(sequence, body.to_vec()))
    }

    fn keep(&mut self, sent: Sent) -> Result<(), LinkError> {
        let queued = match &mut self.sender {
            Some(sender) if !matches!(self.stage, Stage::Given(_)) => sender.queue(&sent.message()),
            _ => Ok(()),
        };
        self.kept.push_back(sent);
        queued
    }

    /// Queues a message if the secondary is connected.
    pub(super) fn send(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        self.sender.as_mut().map_or(Ok(()), |sender| sender.queue(message))
    }

    /// The same, before what there is of log and state.
    pub(super) fn send_first(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        self.sender.as_mut().map_or(Ok(()), |sender| sender.queue_first(message))
    }

    /// The secondary holds all batches before `sequence`.
    pub(super) fn forget_before(&mut self, sequence: u64) {
        loop {
            match self.kept.front() {
                Some(Sent::Batch(number, body)) if *number < sequence => {
                    self.oldest = *number + 1;
                    self.kept_bytes -= body.len();
                }
                // A start is needed as long as a batch behind it is.
                Some(Sent::Start(start)) if start.sequence < sequence => {}
                _ => return,
            }
            self.kept.pop_front();
        }
    }

    /// Whether the log may grow: too much of it is not acknowledged, or not even taken by the socket.
    pub(super) fn has_room(&self) -> bool {
        self.kept_bytes < BACKLOG_MAX
    }

    /// Closes the connection; what is kept stays.
    pub(super) fn disconnect(&mut self) {
        self.sender = None;
    }

    pub(super) fn is_connected(&self) -> bool {
        self.sender.is_some()
    }

    /// Whether it needs a state and is still there to take it.
    pub(super) fn awaits_state(&self) -> bool {
        self.is_connected() && matches!(self.stage, Stage::Wanted)
    }

    /// Where what is queued waits for its socket.
    pub(super) fn sender(&mut self) -> Option<&mut Sender> {
        self.sender.as_mut()
    }
}
