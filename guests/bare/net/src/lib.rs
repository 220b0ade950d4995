//! TCP/IP for bare guests: smoltcp on virtio-net.
//!
//! The guest works in bursts. It takes all frames that have come ([`Stack::receive`]), serves its sockets, sends all that
//! it has to say ([`Stack::transmit`]) and only then rings the doorbell ([`Stack::wait`]): one exit per burst, however
//! many frames go either way.
#![no_std]

extern crate alloc;

mod addresses;
mod device;
mod hal;
mod listener;
mod pci;
mod stack;

pub use addresses::Addresses;
pub use listener::{Listener, Options};
pub use stack::Stack;
