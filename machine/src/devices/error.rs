//! What can be wrong with what devices are given.

use echovisor_event::limits::FRAME_MAX;

/// An event that cannot be delivered: whoever made the log did not look at what the guest wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The guest has no network device, has not started it, or has offered no buffer.
    #[error("a frame for a guest that wants none")]
    FrameUnwanted,
    /// The frame is longer than any may be.
    #[error("a frame of {length} bytes: at most {FRAME_MAX} are allowed")]
    FrameTooLong {
        /// Its length, bytes.
        length: usize,
    },
    /// The console's FIFO has no room for the bytes.
    #[error("{length} bytes for a console that has room for {space}")]
    ConsoleFull {
        /// How many bytes came.
        length: usize,
        /// How many there was room for.
        space: usize,
    },
}

/// Why a saved state cannot be restored: the field that no device could have saved.
#[derive(Debug, thiserror::Error)]
pub enum DeviceStateError {
    /// The console's FIFO is overfull.
    #[error("console.input holds {length} bytes, more than the FIFO")]
    ConsoleInput {
        /// How many bytes.
        length: usize,
    },
    /// A register of the console has a bit that does not exist.
    #[error("console.{register} is {value:#x}")]
    ConsoleRegister {
        /// Which.
        register: &'static str,
        /// Its value.
        value: u8,
    },
    /// The PCI address register has a bit that does not exist.
    #[error("config_address is {value:#x}")]
    ConfigAddress {
        /// Its value.
        value: u32,
    },
    /// A read-only byte of a configuration space differs.
    #[error("{function}: byte {offset:#x} of the configuration space is of another device")]
    ConfigSpace {
        /// The PCI function.
        function: &'static str,
        /// The byte's offset.
        offset: usize,
    },
    /// There is a network device on one side only.
    #[error("the saved machine {} a network device, this one {}", has(*saved), has(!*saved))]
    NetPresence {
        /// Whether the saved machine has one.
        saved: bool,
    },
    /// A register of a virtio device contradicts the device or another register.
    #[error("net.{register} is {value:#x}")]
    VirtioRegister {
        /// Which.
        register: &'static str,
        /// Its value.
        value: u64,
    },
    /// A virtio device has another number of queues.
    #[error("net.queues has {count} entries")]
    QueueCount {
        /// How many.
        count: usize,
    },
    /// A field of a queue is out of range.
    #[error("net.queues[{queue}]: {source}")]
    Queue {
        /// Which queue.
        queue: usize,
        /// What the queue says.
        source: virtio_queue::Error,
    },
    /// A queue cannot be in this state.
    #[error("net.queues[{queue}] {what}")]
    QueueUse {
        /// Which queue.
        queue: usize,
        /// What is wrong.
        what: &'static str,
    },
}

fn has(present: bool) -> &'static str {
    if present { "has" } else { "has not" }
}
