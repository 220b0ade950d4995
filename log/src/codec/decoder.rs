//! Bytes to batches.

use echovisor_event::Term;
use rkyv::{rancor, util::AlignedVec};
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::{Carried, DecodeError, SegmentStart};
use crate::{
    batch::{Batch, Head},
    columns::{ArchivedColumns, Reader},
    limits::{BATCH_DECODED_MAX, BODY_MAX, WINDOW_LOG},
};

/// Reads the batches of one segment, and trusts none of them.
pub struct Decoder {
    carried: Carried,
    /// Always [`BATCH_DECODED_MAX`] bytes long, and one more to notice what is longer.
    raw: AlignedVec,
    decompressor: DCtx<'static>,
    broken: bool,
}

impl Decoder {
    /// A decoder at the beginning of a segment.
    ///
    /// # Panics
    ///
    /// Panics if there is no memory for the decompressor (about 2 MiB).
    #[must_use]
    pub fn new(start: SegmentStart) -> Decoder {
        let mut decompressor = DCtx::create();
        decompressor
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
            .expect("zstd accepts its documented parameters");
        let mut raw = AlignedVec::new();
        raw.resize(BATCH_DECODED_MAX + 1, 0);
        Decoder { carried: Carried::new(start), raw, decompressor, broken: false }
    }

    /// Goes on to another segment. The decompressor's memory is kept.
    pub fn start(&mut self, start: SegmentStart) {
        self.carried = Carried::new(start);
        self.broken = false;
        self.decompressor.reset(ResetDirective::SessionOnly).expect("zstd resets in every state");
    }

    /// Decodes the next batch into `batch`, which is cleared first. What arrives there has been validated completely.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; `batch` is empty then, and every later call fails too, until [`Decoder::start`].
    pub fn decode(&mut self, body: &[u8], batch: &mut Batch) -> Result<Head, DecodeError> {
        batch.clear();
        let Carried { next, stopped, .. } = &self.carried;
        if self.broken {
            return Err(DecodeError::Broken { segment: next.segment, sequence: next.sequence });
        }
        if *stopped {
            return Err(DecodeError::Stopped { sequence: next.sequence });
        }
        let result = self.accept(body, batch);
        if result.is_err() {
            self.broken = true;
            batch.clear();
        }
        result
    }

    /// The start of a segment that would follow now in `term`; a next segment's start must equal it.
    #[must_use]
    pub fn following(&self, term: Term) -> SegmentStart {
        self.carried.following(term)
    }

    fn accept(&mut self, body: &[u8], batch: &mut Batch) -> Result<Head, DecodeError> {
        let sequence = self.carried.next.sequence;
        let len = self.decompress(body, sequence)?;
        let raw = &self.raw[..len];
        let columns = rkyv::access::<ArchivedColumns, rancor::Error>(raw)
            .map_err(|_| DecodeError::Layout { sequence, len })?;
        let mut columns = Reader::new(columns);
        let column = |source| DecodeError::Column { sequence, source };
        let head = columns.head(&self.carried.next).map_err(column)?;
        let head = head.ok_or(DecodeError::Sequence { expected: sequence })?;
        columns.records(&head, batch, &mut self.carried.context).map_err(column)?;
        Ok(self.carried.advance(head, batch, &self.raw[..len]))
    }

    /// Decompresses `body` to the front of `raw`, and returns how many bytes there are.
    fn decompress(&mut self, body: &[u8], sequence: u64) -> Result<usize, DecodeError> {
        if body.len() > BODY_MAX {
            return Err(DecodeError::BodyTooLong { sequence, len: body.len() });
        }
        let mut input = InBuffer::around(body);
        let mut output = OutBuffer::around(&mut self.raw[..]);
        loop {
            let before = (input.pos(), output.pos());
            self.decompressor.decompress_stream(&mut output, &mut input).map_err(|error| {
                DecodeError::Compressed {
                    sequence,
                    offset: input.pos(),
                    problem: zstd_safe::get_error_name(error),
                }
            })?;
            if output.pos() > BATCH_DECODED_MAX {
                return Err(DecodeError::Bomb { sequence });
            }
            if before == (input.pos(), output.pos()) {
                return Ok(output.pos());
            }
        }
    }
}
