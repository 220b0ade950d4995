//! Bounds of the log's own formats. Each has its reason above it; what a single event may hold is in
//! [`echovisor_event::limits`].

use echovisor_event::{
    Digest,
    limits::{
        ASK_MAX, BATCH_EVENTS_MAX, BATCH_PAYLOAD_MAX, BURST_MAX, BYTES_MAX, FAN_OUT, FRAME_MAX, PAGE_SIZE,
    },
};

/// Version of every format of this crate: the recording's files, the batches and the link. One number, because the
/// bytes on the wire are the bytes in the store.
pub const VERSION: u16 = 3;

/// Payload bytes that one position's burst may add, at most.
pub(crate) const BURST_PAYLOAD_MAX: usize = BURST_MAX * FRAME_MAX;

/// Records that one position may add beside its frames (clock, wall, console, entropy, checkpoint, digests, stop), with room.
pub(crate) const BURST_EXTRA_RECORDS: usize = 16;

/// Column bytes of one record beside its payload: code, position, number, length, flow, repeats and header fields, each at
/// its longest.
const RECORD_COLUMNS_MAX: usize = 128;

/// A batch as it is before compression, bytes: every payload byte, every record's columns, the fixed part. What
/// decompresses to more is refused.
pub const BATCH_DECODED_MAX: usize = BATCH_PAYLOAD_MAX + BATCH_EVENTS_MAX * RECORD_COLUMNS_MAX + 512;

/// A batch's body as it stands on wire and disk, bytes: zstd's bound for what does not compress, and the frame header.
pub const BODY_MAX: usize = BATCH_DECODED_MAX + BATCH_DECODED_MAX / 128 + 1024;

/// log2 of the window of the compressed stream, bytes (512 KiB): what level 1 uses by itself, pinned so that a
/// receiver knows the memory that a foreign stream can ask for.
pub(crate) const WINDOW_LOG: u32 = 19;

/// A machine's state besides RAM at the end of a delta, bytes: as [`STATE_MAX`], but it fits into a batch beside a position's
/// other records.
pub const DELTA_STATE_MAX: usize = 256 << 10;

/// Pages whose contents both sides remember, so that of a page that is written again only the difference is sent: 32 MiB.
pub(crate) const PAGES_REMEMBERED: usize = 8192;

const _: () = assert!(BURST_PAYLOAD_MAX <= BATCH_PAYLOAD_MAX);
const _: () =
    assert!(DELTA_STATE_MAX + BURST_PAYLOAD_MAX + BURST_EXTRA_RECORDS * BYTES_MAX <= BATCH_PAYLOAD_MAX);
const _: () = assert!(BURST_MAX + BURST_EXTRA_RECORDS <= BATCH_EVENTS_MAX);
const _: () = assert!(BODY_MAX < u32::MAX as usize / 2);

/// Opaque machine configuration in a recording's header and in a state's announcement, bytes: registers of the
/// configuration, a command line, digests; never memory itself.
pub const CONFIG_MAX: usize = 1 << 20;

/// A machine's state besides RAM in a state's announcement, bytes: processor and devices, whose queues are bounded.
pub const STATE_MAX: usize = 1 << 20;

/// Text of one side to the people on the other, bytes: a fingerprint of host and machine, a reason.
pub const TEXT_MAX: usize = 16 << 10;

/// The text of an address, bytes: a host's name has 253 at most, the path of a socket 107.
pub const ADDRESS_MAX: usize = 512;

/// The answer to a question for nodes, bytes.
pub const NODES_MAX: usize = ASK_MAX * FAN_OUT * size_of::<Digest>();

/// The answer to a question for pages, bytes: what does not compress takes a little more than itself.
pub const PAGES_MAX: usize = ASK_MAX * PAGE_SIZE + 1024;

const _: () = assert!(NODES_MAX <= BODY_MAX && PAGES_MAX <= BODY_MAX);
