//! A batch as it is laid out before compression: one column per kind of value, because like compresses well beside like.

use echovisor_event::{Digest, Position, limits::BATCH_EVENTS_MAX, limits::BATCH_PAYLOAD_MAX};
use rkyv::{Archive, Serialize};

use crate::{
    SegmentStart,
    batch::{self, Batch, Entry, Head, Mark},
    flow::FlowTable,
    pages::PageTable,
    record::{Cause, code},
    varint,
};

/// The layout of a batch; docs/formats/log.md tells what stands in each column. rkyv keeps their order: the longest comes first, so
/// that the distances of the others from the root hardly change from batch to batch. Then come those that say the same again and again
/// while little happens, and those that never do, so that what is new to the compressor is in few places.
#[derive(Archive, Serialize, Default)]
pub(crate) struct Columns {
    pub(crate) payload: Vec<u8>,
    pub(crate) flows: Vec<u8>,
    pub(crate) repeats: Vec<u8>,
    pub(crate) lengths: Vec<u8>,
    pub(crate) steps: Vec<u8>,
    pub(crate) codes: Vec<u8>,
    pub(crate) headers: Vec<u8>,
    pub(crate) numbers: Vec<u8>,
    pub(crate) head: Vec<u8>,
}

/// A batch whose bytes do not say what a batch may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{column} of record {record}: {problem}")]
pub struct ColumnError {
    /// The column that is wrong.
    pub column: &'static str,
    /// The record at which it was noticed, counted from 0.
    pub record: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// What is carried from batch to batch, because the next one is coded against it.
#[derive(Default)]
pub(crate) struct Context {
    pub(crate) flows: FlowTable,
    pub(crate) pages: PageTable,
    /// The virtual time of the last clock record.
    pub(crate) clock: u64,
}

impl Columns {
    /// Lays out a batch; `compares`: pages are coded against what is remembered of them.
    ///
    /// The caller has checked that positions and clock do not go back.
    pub(crate) fn pack(&mut self, head: &Head, batch: &Batch, context: &mut Context, compares: bool) {
        let Context { flows, pages, clock } = context;
        self.clear();
        self.pack_head(head);
        let mut at = head.from;
        let mut payload = batch.payload();
        for entry in batch.entries() {
            self.codes.push(entry.code);
            varint::put(&mut self.steps, entry.at.0 - at.0);
            at = entry.at;
            let (bytes, rest) = payload.split_at(entry.len as usize);
            payload = rest;
            match entry.code {
                code::CLOCK => {
                    varint::put(&mut self.numbers, entry.number - *clock);
                    *clock = entry.number;
                }
                code::WALL => varint::put(&mut self.numbers, entry.number),
                code::DIGEST => {
                    varint::put(&mut self.numbers, at.0 - entry.number);
                    self.payload.extend_from_slice(bytes);
                }
                code::FRAME => flows.split(bytes, self),
                code::PAGE => pages.split(entry.number, bytes, compares, self),
                code::DELTA => {
                    varint::put(&mut self.numbers, entry.number);
                    varint::put(&mut self.lengths, bytes.len() as u64);
                    self.payload.extend_from_slice(bytes);
                }
                code::CONSOLE | code::ENTROPY => {
                    varint::put(&mut self.lengths, bytes.len() as u64);
                    self.payload.extend_from_slice(bytes);
                }
                _ => self.payload.extend_from_slice(bytes),
            }
        }
    }

    /// What the receiver knows from the batch before is not said: only enough of the number to notice that one is missing.
    fn pack_head(&mut self, head: &Head) {
        let Head { term: _, sequence, from, mark, chain: _ } = head;
        let watermark = mark.watermark.0;
        self.head.push(*sequence as u8);
        for value in [watermark - from.0, watermark - mark.released.0, watermark - mark.trail_at.0] {
            varint::put(&mut self.head, value);
        }
        self.head.extend_from_slice(&mark.trail.to_le_bytes());
    }

    fn clear(&mut self) {
        let Columns { payload, flows, repeats, lengths, steps, codes, headers, numbers, head } = self;
        for column in [payload, flows, repeats, lengths, steps, codes, headers, numbers, head] {
            column.clear();
        }
    }
}

/// The columns of a batch that came from outside, read from their fronts.
pub(crate) struct Reader<'a> {
    pub(crate) payload: Column<'a>,
    pub(crate) headers: Column<'a>,
    pub(crate) flows: Column<'a>,
    pub(crate) repeats: Column<'a>,
    pub(crate) lengths: Column<'a>,
    pub(crate) numbers: Column<'a>,
    steps: Column<'a>,
    codes: &'a [u8],
    head: Column<'a>,
    record: usize,
}

/// What is left of one column.
pub(crate) struct Column<'a> {
    name: &'static str,
    bytes: &'a [u8],
}

/// What is wrong with a column, before it is known at which record.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) &'static str, pub(crate) &'static str);

impl<'a> Column<'a> {
    pub(crate) fn new(name: &'static str, bytes: &'a [u8]) -> Column<'a> {
        Column { name, bytes }
    }

    pub(crate) fn number(&mut self) -> Result<u64, Problem> {
        varint::take(&mut self.bytes).ok_or(Problem(self.name, "not a number"))
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let (bytes, rest) = self.bytes.split_at_checked(len).ok_or(Problem(self.name, "too short"))?;
        self.bytes = rest;
        Ok(bytes)
    }

    /// A length that is at most `max`.
    pub(crate) fn length(&mut self, max: usize) -> Result<usize, Problem> {
        let len = self.number()?;
        usize::try_from(len).ok().filter(|len| *len <= max).ok_or(Problem(self.name, "longer than it may be"))
    }

    fn end(&self) -> Result<(), Problem> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Problem(self.name, "bytes beyond the last record")) }
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(columns: &'a ArchivedColumns) -> Reader<'a> {
        Reader {
            payload: Column::new("payload", &columns.payload),
            headers: Column::new("headers", &columns.headers),
            flows: Column::new("flows", &columns.flows),
            repeats: Column::new("repeats", &columns.repeats),
            lengths: Column::new("lengths", &columns.lengths),
            numbers: Column::new("numbers", &columns.numbers),
            steps: Column::new("steps", &columns.steps),
            codes: &columns.codes,
            head: Column::new("head", &columns.head),
            record: 0,
        }
    }

    /// Takes the head, and checks it against itself. It is for the batch that follows at `next`; `None` if it says that it is another
    /// one's. Its chain is for the caller to compute.
    pub(crate) fn head(&mut self, next: &SegmentStart) -> Result<Option<Head>, ColumnError> {
        self.take_head(next).map_err(|problem| self.locate(problem))
    }

    fn take_head(&mut self, next: &SegmentStart) -> Result<Option<Head>, Problem> {
        let SegmentStart { term, sequence, position: from, .. } = *next;
        if self.head.bytes(1)? != [sequence as u8] {
            return Ok(None);
        }
        let mut number = || self.head.number();
        let (span, unreleased, trail_lag) = (number()?, number()?, number()?);
        let trail = self.head.bytes(4)?.try_into().map(u32::from_le_bytes).unwrap_or_default();
        self.head.end()?;
        let watermark =
            from.0.checked_add(span).ok_or(Problem("head", "the watermark is beyond every position"))?;
        let back =
            |lag| watermark.checked_sub(lag).map(Position).ok_or(Problem("head", "a position before boot"));
        let mark = Mark {
            watermark: Position(watermark),
            released: back(unreleased)?,
            trail,
            trail_at: back(trail_lag)?,
        };
        Ok(Some(Head { term, sequence, from, mark, chain: Digest::default() }))
    }

    /// Takes all records into `batch`, which is empty, and checks that nothing is left over.
    pub(crate) fn records(
        &mut self,
        head: &Head,
        batch: &mut Batch,
        context: &mut Context,
    ) -> Result<(), ColumnError> {
        if self.codes.len() > BATCH_EVENTS_MAX {
            return Err(ColumnError {
                column: "codes",
                record: BATCH_EVENTS_MAX,
                problem: "too many records",
            });
        }
        let (entries, payload) = batch.parts_mut();
        let mut at = head.from.0;
        for (record, code) in self.codes.iter().copied().enumerate() {
            self.record = record;
            let result = self.take_record(code, &mut at, payload, context);
            let entry = result.map_err(|problem| self.locate(problem))?;
            if entry.at > head.mark.watermark {
                return Err(self.locate(Problem("steps", "a position beyond the watermark")));
            }
            if payload.len() > BATCH_PAYLOAD_MAX {
                return Err(self.locate(Problem("payload", "more than a batch may hold")));
            }
            if code == code::STOP && record + 1 != self.codes.len() {
                return Err(self.locate(Problem("codes", "records after a stop")));
            }
            entries.push(entry);
        }
        let columns = [
            &self.payload,
            &self.headers,
            &self.flows,
            &self.repeats,
            &self.lengths,
            &self.numbers,
            &self.steps,
        ];
        for column in columns {
            column.end().map_err(|problem| self.locate(problem))?;
        }
        Ok(())
    }

    fn take_record(
        &mut self,
        code: u8,
        at: &mut u64,
        payload: &mut Vec<u8>,
        Context { flows, pages, clock }: &mut Context,
    ) -> Result<Entry, Problem> {
        let max = batch::longest(code).ok_or(Problem("codes", "a code that this version does not know"))?;
        *at = at.checked_add(self.steps.number()?).ok_or(Problem("steps", "beyond every position"))?;
        let before = payload.len();
        let mut number = 0;
        match code {
            code::CLOCK => {
                number =
                    clock.checked_add(self.numbers.number()?).ok_or(Problem("numbers", "beyond all time"))?;
                *clock = number;
            }
            code::WALL => number = self.numbers.number()?,
            code::DIGEST => {
                let behind = self.numbers.number()?;
                number = at.checked_sub(behind).ok_or(Problem("numbers", "a checkpoint before boot"))?;
                payload.extend_from_slice(self.payload.bytes(max)?);
            }
            code::FRAME => flows.join(self, payload)?,
            code::PAGE => number = pages.join(self, payload)?,
            code::DELTA => {
                number = self.numbers.number()?;
                Cause::from_number(number).ok_or(Problem("numbers", "no delta has this cause"))?;
                let len = self.lengths.length(max)?;
                payload.extend_from_slice(self.payload.bytes(len)?);
            }
            code::CONSOLE | code::ENTROPY => {
                let len = self.lengths.length(max)?;
                payload.extend_from_slice(self.payload.bytes(len)?);
            }
            _ => payload.extend_from_slice(self.payload.bytes(max)?),
        }
        let len = (payload.len() - before) as u32;
        Ok(Entry { at: Position(*at), code, len, number })
    }

    fn locate(&self, Problem(column, problem): Problem) -> ColumnError {
        ColumnError { column, record: self.record, problem }
    }
}

#[cfg(test)]
mod tests;
