//! Why a virtio device refuses to go on.

use rkyv::{Archive, Deserialize, Serialize};

/// What a driver did that no driver may do.
///
/// The device has set DEVICE_NEEDS_RESET and leaves memory alone until the driver resets it (virtio 1.2, 2.1.2). This
/// is an ordinary part of the guest's execution, the same in every replay, and no error of the machine.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A queue was enabled whose descriptor table or rings do not lie in RAM.
    #[error("queue {queue} was enabled with rings outside RAM")]
    RingsOutsideMemory {
        /// The queue.
        queue: u16,
    },
    /// The available ring claims more chains than it holds.
    #[error("the available index is more than a ring ahead")]
    AvailableIndex,
    /// A chain names a descriptor beyond the table.
    #[error("descriptor {index} is beyond the table")]
    DescriptorIndex {
        /// The descriptor.
        index: u16,
    },
    /// A chain has more descriptors than the table: it goes round.
    #[error("the chain that begins at descriptor {head} never ends")]
    EndlessChain {
        /// Its first descriptor.
        head: u16,
    },
    /// A chain uses an indirect table, which was not offered.
    #[error("descriptor {index} is indirect, which was not negotiated")]
    Indirect {
        /// The descriptor.
        index: u16,
    },
    /// The device was to read a buffer that is for writing, or the other way round.
    #[error("descriptor {index} is for the other direction")]
    Direction {
        /// The descriptor.
        index: u16,
    },
    /// A buffer of no bytes.
    #[error("descriptor {index} has an empty buffer")]
    EmptyBuffer {
        /// The descriptor.
        index: u16,
    },
    /// A buffer does not lie in RAM.
    #[error("descriptor {index} has a buffer outside RAM: {length} bytes at {address:#x}")]
    BufferOutsideMemory {
        /// The descriptor.
        index: u16,
        /// The buffer's address.
        address: u64,
        /// Its length, bytes.
        length: u32,
    },
    /// A chain to be sent is too short or too long for a header and a frame, or one for reception could hold no frame.
    #[error("a chain of {length} bytes holds no frame")]
    FrameLength {
        /// Length of all its buffers, bytes.
        length: u64,
    },
}
