//! Virtio devices (virtio 1.2) on PCI, with split queues.

mod chain;
pub(super) mod fault;
pub(super) mod net;
mod registers;
pub(super) mod state;
mod transport;
