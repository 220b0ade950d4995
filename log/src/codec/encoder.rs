//! Batches to bytes.

use echovisor_event::{Nanos, Position, Term};
use rkyv::{rancor, util::AlignedVec};
use zstd::zstd_safe::{
    self, CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective,
};

use super::{Carried, EncodeError, SegmentStart};
use crate::{
    batch::{Batch, Head, Mark},
    columns::Columns,
    limits::WINDOW_LOG,
    record::code,
};

/// Compression level: the fastest one that entropy-codes well.
const LEVEL: i32 = 1;

/// log2 of the entries in the compressor's table of matches (16 KiB): it fits into a cache that the guest has just used for
/// itself. Level 1 would take four times that, which finds no more in batches of this size, and costs a fifth more time.
const HASH_LOG: u32 = 12;

/// A batch that is ready to be sent and stored.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// Where it stands in the log.
    pub head: Head,
    /// Its bytes, for the wire and for the store.
    pub body: &'a [u8],
}

/// Writes the batches of one segment.
pub struct Encoder {
    carried: Carried,
    columns: Columns,
    raw: AlignedVec,
    compressor: CCtx<'static>,
    /// Whether pages are coded against what is remembered of them.
    compares: bool,
    body: Vec<u8>,
}

/// How much the log is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As far as it pays.
    #[default]
    Zstd,
    /// Hardly: pages travel whole, and the compressor looks for next to nothing, as in systems that stream pages as they are.
    None,
}

impl Encoder {
    /// An encoder at the beginning of a segment.
    ///
    /// # Panics
    ///
    /// Panics if there is no memory for the compressor (about 1 MiB).
    #[must_use]
    pub fn new(start: SegmentStart) -> Encoder {
        Encoder::with(start, Compression::default())
    }

    /// The same, with more or less compression.
    ///
    /// # Panics
    ///
    /// As [`Encoder::new`].
    #[must_use]
    pub fn with(start: SegmentStart, compression: Compression) -> Encoder {
        let mut compressor = CCtx::create();
        let level = match compression {
            Compression::Zstd => LEVEL,
            Compression::None => zstd_safe::min_c_level(),
        };
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::HashLog(HASH_LOG),
            // The store has its own checks, and a batch's size is bounded anyway.
            CParameter::ContentSizeFlag(false),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            compressor.set_parameter(parameter).expect("zstd accepts its documented parameters");
        }
        Encoder {
            carried: Carried::new(start),
            columns: Columns::default(),
            raw: AlignedVec::new(),
            compressor,
            compares: compression == Compression::Zstd,
            body: Vec::new(),
        }
    }

    /// Begins the next segment, in this term, and returns its start. The compressor's memory is kept.
    pub fn next_segment(&mut self, term: Term) -> SegmentStart {
        let start = self.carried.following(term);
        self.carried = Carried::new(start);
        self.compressor.reset(ResetDirective::SessionOnly).expect("zstd resets in every state");
        start
    }

    /// Encodes the next batch.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]; all but [`EncodeError::Compress`] leave the encoder as it was.
    pub fn encode(&mut self, batch: &Batch, mark: Mark) -> Result<Encoded<'_>, EncodeError> {
        let head = Head {
            term: self.carried.next.term,
            sequence: self.carried.next.sequence,
            from: self.carried.next.position,
            mark,
            chain: self.carried.next.chain,
        };
        self.check(&head, batch)?;
        self.columns.pack(&head, batch, &mut self.carried.context, self.compares);
        self.raw.clear();
        self.raw =
            rkyv::api::high::to_bytes_in::<_, rancor::Panic>(&self.columns, std::mem::take(&mut self.raw))
                .expect("columns of bytes serialize into memory");
        self.compress().map_err(|problem| EncodeError::Compress { sequence: head.sequence, problem })?;
        let head = self.carried.advance(head, batch, &self.raw);
        Ok(Encoded { head, body: &self.body })
    }

    /// The start of a segment that would follow now in `term`.
    #[must_use]
    pub fn following(&self, term: Term) -> SegmentStart {
        self.carried.following(term)
    }

    /// Uncompressed bytes of the last batch.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        self.raw.len()
    }

    fn check(&self, head: &Head, batch: &Batch) -> Result<(), EncodeError> {
        if self.carried.stopped {
            return Err(EncodeError::Stopped);
        }
        let Head { from, mark, .. } = *head;
        let inside = |what, at: Position, low: Position, high: Position| {
            if low <= at && at <= high {
                Ok(())
            } else {
                Err(EncodeError::OutOfRange { what, at, from, watermark: mark.watermark })
            }
        };
        inside("the watermark", mark.watermark, from, mark.watermark)?;
        inside("the release mark", mark.released, Position::BOOT, mark.watermark)?;
        inside("the trail", mark.trail_at, Position::BOOT, mark.watermark)?;
        let mut last = self.carried.context.clock;
        for entry in batch.entries() {
            inside("a record", entry.at, from, mark.watermark)?;
            if entry.code == code::CLOCK {
                if entry.number < last {
                    let (last, now) = (Nanos(last), Nanos(entry.number));
                    return Err(EncodeError::ClockBackwards { at: entry.at, last, now });
                }
                last = entry.number;
            }
        }
        Ok(())
    }

    /// Compresses `raw` to `body`, and flushes, so that the receiver can decode all of it.
    fn compress(&mut self) -> Result<(), &'static str> {
        self.body.clear();
        self.body.reserve(zstd_safe::compress_bound(self.raw.len()) + 64);
        let mut input = InBuffer::around(&self.raw);
        loop {
            let filled = self.body.len();
            let mut output = OutBuffer::around_pos(&mut self.body, filled);
            let left = self
                .compressor
                .compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_flush)
                .map_err(zstd_safe::get_error_name)?;
            if left == 0 {
                return Ok(());
            }
            self.body.reserve(left);
        }
    }
}
