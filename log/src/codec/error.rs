//! What can be wrong with a batch, on its way out and on its way in.

use echovisor_event::{Nanos, Position};

use crate::{
    columns::ColumnError,
    limits::{BATCH_DECODED_MAX, BODY_MAX},
};

/// A batch that the recorder could not have meant; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A record or mark lies outside the batch's range of positions.
    #[error(
        "{what} at position {at} is outside of the batch, which goes from position {from} to {watermark}"
    )]
    OutOfRange {
        /// The record or field.
        what: &'static str,
        /// Its position.
        at: Position,
        /// The watermark of the batch before.
        from: Position,
        /// The watermark of this batch.
        watermark: Position,
    },
    /// The virtual clock never goes back.
    #[error("the virtual clock goes back from {last} to {now} at position {at}")]
    ClockBackwards {
        /// Where.
        at: Position,
        /// The earlier record's time.
        last: Nanos,
        /// The refused time.
        now: Nanos,
    },
    /// The segment ended with a stop.
    #[error("a batch after the log was stopped")]
    Stopped,
    /// The compressor refused to work.
    #[error("compressing batch {sequence}: {problem}")]
    Compress {
        /// Number of the batch.
        sequence: u64,
        /// zstd's word for it.
        problem: &'static str,
    },
}

impl EncodeError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            EncodeError::Stopped => Some("start a new segment to go on after a stop"),
            EncodeError::Compress { .. } => {
                Some("start a new segment: the compressor is out of memory or broken")
            }
            _ => None,
        }
    }
}

/// A body that cannot be accepted. Nothing of it was handed out, and the segment can't be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any batch can be.
    #[error("batch {sequence}: a body of {len} bytes; at most {BODY_MAX} are possible")]
    BodyTooLong {
        /// Number of the batch that was expected.
        sequence: u64,
        /// Length of the body, bytes.
        len: usize,
    },
    /// The compressed bytes are damaged, or ask for more memory than allowed.
    #[error("batch {sequence}: compressed body is damaged before its byte {offset}: {problem}")]
    Compressed {
        /// Number of the batch that was expected.
        sequence: u64,
        /// How many bytes of the body were consumed.
        offset: usize,
        /// zstd's word for it.
        problem: &'static str,
    },
    /// Decompresses to more than any batch can be.
    #[error("batch {sequence}: decompresses to more than {BATCH_DECODED_MAX} bytes, which no batch has")]
    Bomb {
        /// Number of the batch that was expected.
        sequence: u64,
    },
    /// The uncompressed bytes are not an archived batch.
    #[error("batch {sequence}: {len} uncompressed bytes are not laid out as a batch")]
    Layout {
        /// Number of the batch that was expected.
        sequence: u64,
        /// How many bytes there were.
        len: usize,
    },
    /// A column contradicts itself, another column or the limits.
    #[error("batch {sequence}: {source}")]
    Column {
        /// Number of the batch that was expected.
        sequence: u64,
        /// Column, record and problem.
        #[source]
        source: ColumnError,
    },
    /// A batch is missing, or came twice.
    #[error("another batch came where batch {expected} must follow")]
    Sequence {
        /// Number that must follow.
        expected: u64,
    },
    /// The segment ended with a stop.
    #[error("batch {sequence} after the log was stopped")]
    Stopped {
        /// Number of the batch.
        sequence: u64,
    },
    /// An earlier body of this segment was refused.
    #[error("batch {sequence}: an earlier batch of segment {segment} could not be read, so this one cannot")]
    Broken {
        /// The segment.
        segment: u64,
        /// Number of the first batch that could not be read.
        sequence: u64,
    },
}

impl DecodeError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            DecodeError::Sequence { .. } => {
                Some("batches were lost between sender and receiver; connect anew and resume")
            }
            _ => Some("what came before is intact; later segments can be read by themselves"),
        }
    }
}
