//! The secondary at the other end of the link, and what must be sent to it again if the link breaks.

use std::collections::VecDeque;

use echovisor_event::{Digest, NodeId, Position};
use echovisor_log::{
    SegmentStart,
    link::{ImageBegin, LinkError, Message, Resume, Sender},
};

/// Bytes of the log that are kept for a secondary that may come back, or that wait for its socket. Beyond this the guest
/// waits.
const BACKLOG_MAX: usize = 64 << 20;

/// Bytes of the state in one message. On a slow link, too, one must come in before the secondary takes the silence for a
/// death.
const CHUNK: usize = 32 << 10;

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

/// The secondary, connected or expected back.
pub(super) struct Peer {
    pub(super) node: NodeId,
    sender: Option<Sender>,
    /// The log begins behind an image; before that, batches are not for this peer.
    pub(super) following: bool,
    /// The state that it was promised is not on its way yet.
    waits: bool,
    /// Number of the batch after the last one that was sent.
    next: u64,
    /// The state that it was given: position and digest.
    pub(super) announced: Option<(Position, Digest)>,
    /// All batches from this one on are kept.
    oldest: u64,
    kept: VecDeque<Sent>,
    kept_bytes: usize,
}

impl Peer {
    pub(super) fn new(node: NodeId, sender: Sender) -> Peer {
        Peer {
            node,
            sender: Some(sender),
            following: false,
            waits: false,
            next: 0,
            announced: None,
            oldest: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// Whether what `resume` asks for can still be sent.
    pub(super) fn can_resume(&self, resume: Resume) -> bool {
        self.following && !self.waits && (self.oldest..=self.next).contains(&resume.sequence)
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

    /// The log that is for this peer begins at `start`, behind a state at `position` with this digest, which
    /// [`Peer::send_image`] will bring: what is sent meanwhile waits.
    pub(super) fn promise_image(&mut self, position: Position, digest: Digest, start: SegmentStart) {
        self.following = true;
        self.waits = true;
        self.oldest = start.sequence;
        self.next = start.sequence;
        self.announced = Some((position, digest));
        self.kept.push_back(Sent::Start(start));
    }

    /// Queues the state, in bytes, and everything that waits behind it.
    pub(super) fn send_image(&mut self, bytes: &[u8], config: Vec<u8>) -> Result<(), LinkError> {
        let (Some(sender), Some((position, digest))) = (&mut self.sender, self.announced) else {
            return Ok(());
        };
        self.waits = false;
        sender.queue(&Message::ImageBegin(ImageBegin {
            position,
            bytes: bytes.len() as u64,
            digest,
            config,
        }))?;
        for chunk in bytes.chunks(CHUNK) {
            sender.queue(&Message::ImageChunk(chunk))?;
        }
        sender.queue(&Message::ImageEnd)?;
        self.kept.iter().try_for_each(|sent| sender.queue(&sent.message()))
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
            Some(sender) if !self.waits => sender.queue(&sent.message()),
            _ => Ok(()),
        };
        self.kept.push_back(sent);
        queued
    }

    /// Queues a message if the secondary is connected.
    pub(super) fn send(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        self.sender.as_mut().map_or(Ok(()), |sender| sender.queue(message))
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

    /// Whether it was promised a state and is still there to take it.
    pub(super) fn awaits_image(&self) -> bool {
        self.is_connected() && !self.following
    }

    /// Where what is queued waits for its socket.
    pub(super) fn sender(&mut self) -> Option<&mut Sender> {
        self.sender.as_mut()
    }
}
