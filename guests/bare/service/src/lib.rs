//! A key-value store behind RESP2 and HTTP, free of any I/O: bytes in, bytes out.
//!
//! Nothing here may panic for want of memory. What grows on behalf of a peer grows by fallible allocations, and a
//! failure becomes an answer ([`commands::Failure::OutOfMemory`]) or the end of that one connection.
#![no_std]

extern crate alloc;

pub mod buffers;
pub mod commands;
pub mod http;
pub mod limits;
mod number;
pub mod resp;
mod store;

pub use store::{Heap, Store};

use buffers::{Input, Output};

/// What all connections share.
pub struct Service {
    /// The data.
    pub store: Store,
    /// What was counted since boot.
    pub stats: Stats,
    /// Virtual time since boot in ns, as of the current burst.
    pub now: u64,
}

/// Counts since boot.
#[derive(Default)]
pub struct Stats {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that are open.
    pub open: usize,
    /// RESP commands that were executed.
    pub commands: u64,
    /// HTTP requests that were answered.
    pub requests: u64,
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// What `/counter` has counted.
    pub counter: u64,
}

impl Service {
    /// An empty service.
    pub fn new(store: Store) -> Self {
        Self { store, stats: Stats::default(), now: 0 }
    }

    /// Whole seconds since boot.
    fn uptime(&self) -> u64 {
        self.now / 1_000_000_000
    }
}

/// One side of a conversation, in either protocol.
pub enum Session {
    /// A client of the key-value store.
    Resp(resp::Session),
    /// A client of the web pages.
    Http(http::Session),
}

/// Whether a conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It ends once the output is sent.
    Close,
}

impl Session {
    /// Answers the complete requests in `input`, until it needs more input or the output should be sent first.
    pub fn advance(&mut self, input: &mut Input, output: &mut Output, service: &mut Service) -> Flow {
        match self {
            Self::Resp(session) => session.advance(input, output, service),
            Self::Http(session) => session.advance(input, output, service),
        }
    }
}
