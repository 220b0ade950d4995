//! The log's end on the guest's thread: records go into a batch, full or due batches go to the async side.

use std::time::{Duration, Instant};

use echovisor_event::{Digest, Event, Position};
use echovisor_log::{Batch, Mark, Pool, PushError, Record};

use crate::rounds::Captured;

/// How long a record may wait for others before its batch is sent, while effects wait for the log.
pub const FLUSH_AFTER: Duration = Duration::from_millis(1);

/// The same while nobody waits for the log but a disk, or a secondary that joins. A thread that is woken finds its caches filled with
/// other things, which costs as much as to encode some thousand records: as many go together as come within this time,
/// up to what is enough for a batch.
pub const FLUSH_ALONE_AFTER: Duration = Duration::from_millis(100);

/// With so many records a batch goes, though it has room for more: to encode them takes a fifth of a millisecond, as long as a guest
/// and its clients can do without the processor that the other side takes, because there are requests on their way.
const ENOUGH: usize = 1024;

/// The same in bytes of payload.
const ENOUGH_PAYLOAD: usize = 256 << 10;

/// Batches that may be on their way to the async side. When they are used up, the guest waits: memory is bounded.
const DEPTH: usize = 256;

/// What the guest's thread hands over, in the order of the log.
pub enum Entry {
    /// A batch. Give it back to [`JournalReader::recycle`].
    Batch(Batch, Mark),
    /// The guest stands still here, as it was asked with this number, behind everything written so far; and the digest of its
    /// state.
    Paused(u64, Position, Digest),
    /// A state that was asked for. The batch before it ends with the checkpoint, those behind it begin at its position.
    Capture(Box<Captured>),
}

/// The writing end.
pub struct Journal {
    batch: Batch,
    /// `None` while nobody reads.
    sender: Option<flume::Sender<Entry>>,
    spare: Pool,
    /// What will be said with the next batch.
    mark: Mark,
    /// The watermark of the last batch.
    flushed: Option<Position>,
    /// When the batch came to be waited for: its first record, or an effect.
    opened: Option<Instant>,
    /// The log consists of deltas: events are not written.
    omits_events: bool,
    /// There were some since the log came to where it ends.
    omitted: bool,
}

/// The reading end.
pub struct JournalReader {
    receiver: flume::Receiver<Entry>,
    spare: Pool,
}

impl JournalReader {
    /// The entries, in order. They end when the guest's thread is done.
    #[must_use]
    pub fn entries(&self) -> &flume::Receiver<Entry> {
        &self.receiver
    }

    /// Gives a batch back to be filled again.
    pub fn recycle(&self, batch: Batch) {
        self.spare.give(batch);
    }
}

impl Journal {
    /// A journal that someone reads.
    #[must_use]
    pub fn new() -> (Journal, JournalReader) {
        let (sender, receiver) = flume::bounded(DEPTH);
        let journal = Journal { sender: Some(sender), ..Journal::closed() };
        let spare = journal.spare.clone();
        (journal, JournalReader { receiver, spare })
    }

    /// A journal that writes nothing, with a reader that reads nothing.
    #[must_use]
    pub fn unwritten() -> (Journal, JournalReader) {
        let (_, receiver) = flume::bounded(0);
        let journal = Journal::closed();
        let spare = journal.spare.clone();
        (journal, JournalReader { receiver, spare })
    }

    fn closed() -> Journal {
        Journal {
            batch: Batch::new(),
            sender: None,
            spare: Pool::new(DEPTH),
            mark: Mark::default(),
            flushed: None,
            opened: None,
            omits_events: false,
            omitted: false,
        }
    }

    /// Whether anybody reads.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.sender.is_some()
    }

    /// Leaves events out from now on, because the log consists of deltas.
    pub fn omit_events(&mut self, omit: bool) {
        self.omits_events = omit;
    }

    /// Whether events were left out since the guest [arrived](Journal::arrived) where the log ends.
    #[must_use]
    pub fn has_omitted(&self) -> bool {
        self.omitted
    }

    /// Writes an event that happened at `at`. No allocation, no system call.
    ///
    /// # Errors
    /// If the batch is full; flush it before each position where [`Journal::is_full`].
    pub fn event(&mut self, at: Position, event: Event<'_>) -> Result<(), PushError> {
        if self.omits_events {
            self.omitted = true;
            return Ok(());
        }
        self.push(at, Record::Event(event))
    }

    /// Writes any record.
    ///
    /// # Errors
    /// As [`Journal::event`].
    pub fn push(&mut self, at: Position, record: Record<'_>) -> Result<(), PushError> {
        if self.is_open() {
            self.batch.push(at, record)?;
            self.touch();
        }
        Ok(())
    }

    /// Something waits for the log, though nothing was written: the next batch is due soon.
    pub fn touch(&mut self) {
        if self.is_open() {
            self.opened.get_or_insert_with(Instant::now);
        }
    }

    /// The guest has come to `at`: nothing more will happen before it.
    pub fn arrived(&mut self, at: Position, trail: u64) {
        self.omitted = false;
        self.mark.watermark = at;
        self.mark.trail = trail as u32;
        self.mark.trail_at = at;
    }

    /// The log is complete before this position.
    #[must_use]
    pub fn watermark(&self) -> Position {
        self.mark.watermark
    }

    /// Whether the batch is to be flushed before the next position: its records might not fit, or others have waited for enough.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.len() >= ENOUGH || self.batch.payload_len() >= ENOUGH_PAYLOAD || self.batch.is_full()
    }

    /// Whether there is anything that was not handed over yet.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.is_open() && (!self.batch.is_empty() || self.flushed != Some(self.mark.watermark))
    }

    /// When the batch is due, if there is anything in it; `protected`: whether effects wait for it.
    #[must_use]
    pub fn due(&self, protected: bool) -> Option<Instant> {
        let patience = if protected { FLUSH_AFTER } else { FLUSH_ALONE_AFTER };
        self.opened.map(|opened| opened + patience)
    }

    /// Hands the batch over; waits while the async side is behind. `released`: effects up to here have left the gate.
    pub fn flush(&mut self, released: Position) {
        let Some(sender) = &self.sender else { return };
        let batch = std::mem::replace(&mut self.batch, self.spare.take());
        let mark = Mark { released: released.min(self.mark.watermark), ..self.mark };
        self.flushed = Some(mark.watermark);
        self.opened = None;
        if sender.send(Entry::Batch(batch, mark)).is_err() {
            self.sender = None;
        }
    }

    /// Says that the guest stands still, behind everything written so far.
    pub fn paused(&mut self, number: u64, at: Position, digest: Digest) {
        if let Some(sender) = &self.sender
            && sender.send(Entry::Paused(number, at, digest)).is_err()
        {
            self.sender = None;
        }
    }

    /// Hands a state over, behind everything written so far.
    pub fn capture(&mut self, captured: Captured) {
        if let Some(sender) = &self.sender
            && sender.send(Entry::Capture(Box::new(captured))).is_err()
        {
            self.sender = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_goes_before_it_is_large() {
        let filled_by = |length: usize| {
            let (mut journal, reader) = Journal::new();
            let bytes = vec![0; length];
            let mut count = 0;
            while !journal.is_full() {
                journal.event(Position(1), Event::Frame(&bytes)).unwrap();
                count += 1;
            }
            journal.arrived(Position(1), 0);
            journal.flush(Position(1));
            assert!(!journal.is_full());
            match reader.entries().recv() {
                Ok(Entry::Batch(batch, _)) => assert_eq!(batch.len(), count),
                _ => panic!("a batch was handed over"),
            }
            count
        };
        assert_eq!(filled_by(60), ENOUGH);
        assert_eq!(filled_by(1024), ENOUGH_PAYLOAD / 1024);
    }
}
