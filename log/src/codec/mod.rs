//! Batches to bytes and back. The bytes are the same on the wire and in the store.
//!
//! An [`Encoder`] and its [`Decoder`] live as long as a segment: both carry the compression window, the flows, the clock and
//! the hash chain from batch to batch, so a segment is decoded from its beginning, and without gaps.

mod decoder;
mod encoder;
mod error;

use echovisor_event::{Digest, Position, Term};

use crate::{
    batch::{Batch, Head},
    columns::Context,
    record::code,
};

pub use decoder::Decoder;
pub use encoder::{Compression, Encoded, Encoder};
pub use error::{DecodeError, EncodeError};

/// Where a segment begins: what encoder, decoder, store and link must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct SegmentStart {
    /// The segment's number, counted from 0.
    pub segment: u64,
    /// Under which primary it is written.
    pub term: Term,
    /// Number of its first batch.
    pub sequence: u64,
    /// The watermark before its first batch.
    pub position: Position,
    /// The hash chain before its first batch; zeros at the beginning of a log.
    pub chain: Digest,
}

impl SegmentStart {
    /// The beginning of a log.
    #[must_use]
    pub fn first(term: Term) -> SegmentStart {
        SegmentStart { segment: 0, term, sequence: 0, position: Position::BOOT, chain: Digest::default() }
    }
}

/// What encoder and decoder carry from batch to batch.
struct Carried {
    /// The start of a segment that would follow now, but for its number and term.
    next: SegmentStart,
    context: Context,
    stopped: bool,
}

impl Carried {
    fn new(start: SegmentStart) -> Carried {
        Carried { next: start, context: Context::default(), stopped: false }
    }

    /// Goes past a batch whose uncompressed bytes are `raw`, and links it to the chain.
    fn advance(&mut self, head: Head, batch: &Batch, raw: &[u8]) -> Head {
        self.next.chain = Digest(*blake3::keyed_hash(&self.next.chain.0, raw).as_bytes());
        // A start that came from outside may have the last number there is.
        self.next.sequence = self.next.sequence.saturating_add(1);
        self.next.position = head.mark.watermark;
        self.stopped = batch.entries().last().is_some_and(|entry| entry.code == code::STOP);
        Head { chain: self.next.chain, ..head }
    }

    fn following(&self, term: Term) -> SegmentStart {
        SegmentStart { segment: self.next.segment.saturating_add(1), term, ..self.next }
    }
}
