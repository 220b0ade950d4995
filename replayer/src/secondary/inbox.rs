//! What comes in over the link, checked and in order.

use std::time::Instant;

use echovisor_event::Position;
use echovisor_log::{
    DecodeError, Decoder, Pool,
    link::{HandOver, Heartbeat, Message, Resume, SyncBegin},
};
use echovisor_snapshot::sync::{Answer, WalkError};

use crate::Arrived;

/// What a message gave.
pub(super) enum Received<'a> {
    /// Nothing that matters here.
    Nothing,
    /// A state to be made this node's own.
    State(SyncBegin),
    /// A part of it.
    Part(Answer<'a>),
    /// The next batch.
    Batch(Arrived),
    /// From this position on this node may take over.
    Grant(Position),
    /// The primary lives.
    Heartbeat(Heartbeat),
    /// The log ends here on purpose, for this node to go on.
    HandOver(HandOver),
    /// The primary keeps the guest that it was asked for, and why.
    Keep(String),
    /// The guest has ended, and why.
    Bye(String),
}

/// A message that no primary sends, or sends now. The state is good up to what came before.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// It does not belong here.
    #[error("{0} does not belong here")]
    Order(&'static str),
    /// A part of a state is not what was asked for.
    #[error(transparent)]
    State(#[from] WalkError),
    /// A batch is damaged or not the next one.
    #[error(transparent)]
    Batch(#[from] DecodeError),
    /// A segment does not continue the one before.
    #[error("segment {found} does not continue the log, which goes on with segment {expected}")]
    Segment { expected: u64, found: u64 },
}

/// Puts messages together.
#[derive(Default)]
pub(super) struct Inbox {
    decoder: Option<Decoder>,
    /// The state is there, so the first segment may begin anywhere.
    expects_first: bool,
    place: Option<Resume>,
    held: Position,
    /// The log has ended.
    handed_over: bool,
    log_bytes: u64,
}

impl Inbox {
    /// The first batch that is not held, if any log was taken.
    pub(super) fn place(&self) -> Option<Resume> {
        self.place
    }

    /// Bytes of the log that came in.
    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// The log is held up to this watermark.
    pub(super) fn held(&self) -> Position {
        self.held
    }

    /// The log goes on behind a state at `position`.
    pub(super) fn begin(&mut self, position: Position) {
        *self = Inbox { expects_first: true, held: position, log_bytes: self.log_bytes, ..Inbox::default() };
    }

    /// Takes a message that came in at the moment `at`. A batch's records go into one of `spare`, if there is any.
    pub(super) fn take<'a>(
        &mut self,
        message: Message<'a>,
        at: Instant,
        spare: Option<&Pool>,
    ) -> Result<Received<'a>, Unfit> {
        match message {
            Message::SyncBegin(begin) => Ok(Received::State(begin)),
            Message::SyncNodes(bytes) => Ok(Received::Part(Answer::Nodes(bytes))),
            Message::SyncPages(bytes) => Ok(Received::Part(Answer::Pages(bytes))),
            Message::SegmentStart(start) => {
                let following = self.decoder.as_ref().map(|decoder| decoder.following(start.term));
                match following {
                    None if self.expects_first => self.decoder = Some(Decoder::new(start)),
                    None => return Err(Unfit::Order("the start of a segment")),
                    Some(following) if following != start => {
                        return Err(Unfit::Segment { expected: following.segment, found: start.segment });
                    }
                    Some(_) => self.decoder.iter_mut().for_each(|decoder| decoder.start(start)),
                }
                self.place = Some(Resume { segment: start.segment, sequence: start.sequence });
                Ok(Received::Nothing)
            }
            Message::Batch(_) if self.handed_over => Err(Unfit::Order("a batch behind the log's end")),
            Message::HandOver(end) if end.position == self.held => {
                self.handed_over = true;
                Ok(Received::HandOver(end))
            }
            Message::Keep(why) => Ok(Received::Keep(why)),
            Message::Batch(body) => {
                let (Some(decoder), Some(place)) = (&mut self.decoder, &mut self.place) else {
                    return Err(Unfit::Order("a batch"));
                };
                let mut batch = spare.map(Pool::take).unwrap_or_default();
                let head = decoder.decode(body, &mut batch)?;
                place.sequence = head.sequence.saturating_add(1);
                self.log_bytes += body.len() as u64;
                self.held = head.mark.watermark;
                Ok(Received::Batch(Arrived { batch, mark: head.mark, at }))
            }
            Message::Grant(position) => Ok(Received::Grant(position)),
            Message::Heartbeat(heartbeat) => Ok(Received::Heartbeat(heartbeat)),
            Message::Bye(text) => Ok(Received::Bye(text)),
            _ => Err(Unfit::Order("this message")),
        }
    }
}
