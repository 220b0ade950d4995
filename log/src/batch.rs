//! A batch: stamped records in order, and what is known once they are.

use echovisor_event::{
    Digest, Event, Nanos, Position, Stamped, Term,
    limits::{BATCH_EVENTS_MAX, BATCH_PAYLOAD_MAX, BYTES_MAX, FRAME_MAX, PAGE_SIZE},
};

use crate::{
    limits::{BURST_EXTRA_RECORDS, BURST_PAYLOAD_MAX, DELTA_STATE_MAX},
    record::{Cause, Record, code},
};

/// What the recorder knows when it closes a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The log is complete up to here: nothing before it will follow. Records *at* it may still, since inputs that reach a
    /// waiting guest belong to the position it waits at.
    pub watermark: Position,
    /// Effects made at or before this position have left the gate; never beyond the watermark.
    pub released: Position,
    /// The trail (a running hash over what the guest did at its exits) as it was at `trail_at`: its low 4 bytes. A guest that has done
    /// something else also has another trail in all later batches, so that more would find no more.
    pub trail: u32,
    /// Where the trail was taken; never beyond the watermark.
    pub trail_at: Position,
}

/// A batch's place in the log. The batch covers the positions from `from` to `mark.watermark`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Under which primary it was written.
    pub term: Term,
    /// Its number, counted from the beginning of the log across segments and terms.
    pub sequence: u64,
    /// The watermark of the batch before it: no record here is earlier.
    pub from: Position,
    /// What was known when it was closed.
    pub mark: Mark,
    /// The hash chain after it. Not part of its bytes: each side computes it.
    pub chain: Digest,
}

/// The records of one batch, in order.
///
/// All memory is reserved by [`Batch::new`], so that a vCPU thread can fill it without allocating; it is made to be cleared
/// and used again. The encoder reads it, the decoder fills it.
pub struct Batch {
    entries: Vec<Entry>,
    payload: Vec<u8>,
}

/// A record without its bytes. Those of all records stand one after the other in the payload.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) at: Position,
    pub(crate) code: u8,
    /// Length in the payload, bytes.
    pub(crate) len: u32,
    /// Nanoseconds of a clock or wall record, the checkpoint's position of a digest, a page's number, the number of a delta's
    /// cause, else 0.
    pub(crate) number: u64,
}

const _: () = assert!(BATCH_PAYLOAD_MAX <= u32::MAX as usize);

/// A record that does not fit in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The batch has no room left; [`Batch::is_full`] says so one burst ahead.
    #[error("the batch is full: {records} records with {bytes} bytes of payload")]
    Full {
        /// Records that it holds.
        records: usize,
        /// Payload bytes that it holds.
        bytes: usize,
    },
    /// One record carries more bytes than its kind may.
    #[error("{what} of {len} bytes at position {at}; at most {max} are allowed")]
    TooLong {
        /// The kind of record.
        what: &'static str,
        /// Where it was stamped.
        at: Position,
        /// Its length, bytes.
        len: usize,
        /// The bound, bytes.
        max: usize,
    },
    /// A page is whole, or of zeros.
    #[error("{len} bytes of a page at position {at}; a page has {PAGE_SIZE}, or none if it is zero")]
    PartOfPage {
        /// Where it was stamped.
        at: Position,
        /// Its length, bytes.
        len: usize,
    },
    /// Positions never go back.
    #[error("a record at position {at} after one at position {last}")]
    Backwards {
        /// Position of the refused record.
        at: Position,
        /// Position of the record before it.
        last: Position,
    },
    /// Nothing follows a stop.
    #[error("a record at position {at} after the log was stopped")]
    Stopped {
        /// Position of the refused record.
        at: Position,
    },
}

impl PushError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            PushError::Full { .. } => {
                Some("flush the batch when is_full() says so, before the next position")
            }
            _ => None,
        }
    }
}

impl Batch {
    /// An empty batch with room for the largest one (about 1.1 MiB; pages that are never written cost nothing).
    #[must_use]
    pub fn new() -> Batch {
        Batch {
            entries: Vec::with_capacity(BATCH_EVENTS_MAX),
            payload: Vec::with_capacity(BATCH_PAYLOAD_MAX),
        }
    }

    /// A copy that takes no more memory than its records. It is made to be read, not to be filled again.
    #[must_use]
    pub fn compact(&self) -> Batch {
        Batch { entries: self.entries.clone(), payload: self.payload.clone() }
    }

    /// Appends a record. Allocates nothing.
    ///
    /// # Errors
    ///
    /// [`PushError`], and then the batch is as it was.
    pub fn push(&mut self, at: Position, record: Record<'_>) -> Result<(), PushError> {
        match record {
            Record::Event(Event::Clock(now)) => self.append(at, code::CLOCK, now.0, &[]),
            Record::Event(Event::Wall(nanos)) => self.append(at, code::WALL, nanos, &[]),
            Record::Event(Event::Frame(bytes)) => self.append(at, code::FRAME, 0, bytes),
            Record::Event(Event::Console(bytes)) => self.append(at, code::CONSOLE, 0, bytes),
            Record::Event(Event::Entropy(bytes)) => self.append(at, code::ENTROPY, 0, bytes),
            Record::Checkpoint => self.append(at, code::CHECKPOINT, 0, &[]),
            Record::Digest { of, .. } if of > at => Err(PushError::Backwards { at, last: of }),
            Record::Digest { of, digest } => self.append(at, code::DIGEST, of.0, &digest.0),
            Record::Page { page, contents } => self.append(at, code::PAGE, page, contents),
            Record::Delta { cause, state } => self.append(at, code::DELTA, cause as u64, state),
            Record::Stop => self.append(at, code::STOP, 0, &[]),
        }
    }

    fn append(&mut self, at: Position, code: u8, number: u64, bytes: &[u8]) -> Result<(), PushError> {
        if let Some(last) = self.entries.last() {
            if at < last.at {
                return Err(PushError::Backwards { at, last: last.at });
            }
            if last.code == code::STOP {
                return Err(PushError::Stopped { at });
            }
        }
        let max = longest(code).unwrap_or(0);
        if bytes.len() > max {
            return Err(PushError::TooLong { what: name(code), at, len: bytes.len(), max });
        }
        if code == code::PAGE && !matches!(bytes.len(), 0 | PAGE_SIZE) {
            return Err(PushError::PartOfPage { at, len: bytes.len() });
        }
        if self.entries.len() == BATCH_EVENTS_MAX || self.payload.len() + bytes.len() > BATCH_PAYLOAD_MAX {
            return Err(PushError::Full { records: self.entries.len(), bytes: self.payload.len() });
        }
        self.entries.push(Entry { at, code, len: bytes.len() as u32, number });
        self.payload.extend_from_slice(bytes);
        Ok(())
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.payload.clear();
    }

    /// Whether the next position's records might not fit: a burst of the largest frames and a few records beside.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.payload.len() + BURST_PAYLOAD_MAX + BURST_EXTRA_RECORDS * BYTES_MAX > BATCH_PAYLOAD_MAX
            || self.entries.len() + echovisor_event::limits::BURST_MAX + BURST_EXTRA_RECORDS
                > BATCH_EVENTS_MAX
    }

    /// Whether there is no record in it. Such a batch is still worth sending: its watermark lets the secondary go on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Payload bytes of all records: frames, console and entropy bytes, digests, pages and states.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// Position of the first record.
    #[must_use]
    pub fn first(&self) -> Option<Position> {
        self.entries.first().map(|entry| entry.at)
    }

    /// Position of the last record.
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        self.entries.last().map(|entry| entry.at)
    }

    /// The records in order, borrowed.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records { entries: self.entries.iter(), payload: &self.payload }
    }

    /// Whether it ends its segment, because it holds a checkpoint.
    #[must_use]
    pub fn ends_segment(&self) -> bool {
        self.entries.iter().any(|entry| entry.code == code::CHECKPOINT)
    }

    /// The digests in it, with the positions of their checkpoints.
    pub fn digests(&self) -> impl Iterator<Item = (Position, Digest)> {
        let mut end = 0;
        self.entries.iter().filter_map(move |entry| {
            let start = end;
            end += entry.len as usize;
            (entry.code == code::DIGEST).then(|| (Position(entry.number), digest(&self.payload[start..end])))
        })
    }

    /// The record at `cursor`, and the cursor behind it; `None` behind the last one.
    #[must_use]
    pub fn get(&self, cursor: Cursor) -> Option<(Stamped<Record<'_>>, Cursor)> {
        let mut rest = Records {
            entries: self.entries.get(cursor.record..)?.iter(),
            payload: self.payload.get(cursor.payload..)?,
        };
        let record = rest.next()?;
        let after = Cursor { record: cursor.record + 1, payload: self.payload.len() - rest.payload.len() };
        Some((record, after))
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Both parts, for the decoder, which keeps the two consistent.
    pub(crate) fn parts_mut(&mut self) -> (&mut Vec<Entry>, &mut Vec<u8>) {
        (&mut self.entries, &mut self.payload)
    }
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.records()).finish()
    }
}

/// A place in a [`Batch`], for readers that stop between records. It is meaningful only for the batch it came from; the
/// default is the beginning of any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    record: usize,
    payload: usize,
}

/// Iterates over the records of a [`Batch`].
#[derive(Clone)]
pub struct Records<'a> {
    entries: std::slice::Iter<'a, Entry>,
    payload: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Stamped<Record<'a>>;

    fn next(&mut self) -> Option<Stamped<Record<'a>>> {
        let entry = self.entries.next()?;
        let (bytes, rest) = self.payload.split_at(entry.len as usize);
        self.payload = rest;
        let what = match entry.code {
            code::CLOCK => Record::Event(Event::Clock(Nanos(entry.number))),
            code::WALL => Record::Event(Event::Wall(entry.number)),
            code::FRAME => Record::Event(Event::Frame(bytes)),
            code::CONSOLE => Record::Event(Event::Console(bytes)),
            code::ENTROPY => Record::Event(Event::Entropy(bytes)),
            code::CHECKPOINT => Record::Checkpoint,
            code::DIGEST => Record::Digest { of: Position(entry.number), digest: digest(bytes) },
            code::PAGE => Record::Page { page: entry.number, contents: bytes },
            code::DELTA => Record::Delta {
                cause: Cause::from_number(entry.number).expect("a cause was pushed or checked"),
                state: bytes,
            },
            code::STOP => Record::Stop,
            code => unreachable!("record code {code} was pushed or decoded without a check"),
        };
        Some(Stamped { at: entry.at, what })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for Records<'_> {}

/// The payload of a digest's record.
fn digest(bytes: &[u8]) -> Digest {
    Digest(bytes.try_into().expect("a digest is 32 bytes"))
}

/// Most payload bytes of a record with this code; `None` if there is no such code.
pub(crate) fn longest(code: u8) -> Option<usize> {
    match code {
        code::CLOCK | code::WALL | code::CHECKPOINT | code::STOP => Some(0),
        code::FRAME => Some(FRAME_MAX),
        code::CONSOLE | code::ENTROPY => Some(BYTES_MAX),
        code::DIGEST => Some(32),
        code::PAGE => Some(PAGE_SIZE),
        code::DELTA => Some(DELTA_STATE_MAX),
        _ => None,
    }
}

/// What a record with this code is called in messages.
pub(crate) fn name(code: u8) -> &'static str {
    match code {
        code::CLOCK => "clock",
        code::WALL => "wall time",
        code::FRAME => "frame",
        code::CONSOLE => "console input",
        code::ENTROPY => "entropy",
        code::CHECKPOINT => "checkpoint",
        code::DIGEST => "digest",
        code::PAGE => "page",
        code::DELTA => "delta",
        code::STOP => "stop",
        _ => "unknown record",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_among_other_records() {
        let mut batch = Batch::new();
        let [first, second] = [1, 2].map(|byte| Digest([byte; 32]));
        let frame = Record::Event(Event::Frame(&[3; 100]));
        batch.push(Position(5), Record::Digest { of: Position(4), digest: first }).unwrap();
        batch.push(Position(5), frame).unwrap();
        batch.push(Position(7), Record::Digest { of: Position(6), digest: second }).unwrap();
        batch.push(Position(7), frame).unwrap();
        assert_eq!(batch.digests().collect::<Vec<_>>(), [(Position(4), first), (Position(6), second)]);
        assert!(!batch.ends_segment());
        batch.push(Position(8), Record::Checkpoint).unwrap();
        assert!(batch.ends_segment());
    }
}
