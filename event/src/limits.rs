//! Bounds that both sides of every interface rely on. Each has its reason above it.

/// Largest Ethernet frame, bytes: room for an MTU of 9000 with Ethernet and VLAN headers, rounded up.
pub const FRAME_MAX: usize = 9216;

/// Most console or entropy bytes in one event: what a terminal hands over at once.
pub const BYTES_MAX: usize = 4096;

/// Most frames delivered at one position. With at most 8, a server under load was a quarter slower; beyond 64 nothing
/// more was gained.
pub const BURST_MAX: usize = 64;

/// Payload bytes at which a batch is full. One burst of full frames fits, so a burst is never split by size alone.
pub const BATCH_PAYLOAD_MAX: usize = 1 << 20;

/// Most events in one batch.
pub const BATCH_EVENTS_MAX: usize = 4096;

/// Smallest guest memory, bytes: the machine's tables, the control page and a small image with its stack.
pub const MEMORY_MIN: u64 = 8 << 20;

/// Guest memory is a multiple of this, bytes: the machine maps it with pages of 2 MiB, and beyond the last one every access
/// must fault.
pub const MEMORY_STEP: u64 = 2 << 20;

/// Largest guest memory, bytes: the tables that map it fit below the control page, and the digests of its pages, which each side
/// keeps in memory, take 512 MiB.
pub const MEMORY_MAX: u64 = 64 << 30;

/// Size of a page, bytes.
pub const PAGE_SIZE: usize = 4096;

/// How many children a node of the page tree has. A level is 1/64 of the one below, so that the whole tree costs little more
/// than its leaves.
pub const FAN_OUT: usize = 64;

/// Nodes or pages of a state that one question may name. Its answer has up to 64 KiB, which a link of 1 Mbit/s carries in half
/// a second, and heartbeats and the log pass between two answers.
pub const ASK_MAX: usize = 16;

const _: () = assert!(BURST_MAX * FRAME_MAX <= BATCH_PAYLOAD_MAX);
const _: () = assert!(MEMORY_MIN < MEMORY_MAX && MEMORY_MAX.is_multiple_of(MEMORY_STEP));
const _: () = assert!(MEMORY_STEP.is_multiple_of(PAGE_SIZE as u64));
