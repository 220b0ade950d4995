//! A network for experiments: two hosts, a client, a switch between them, and a link of the two hosts' own, all of them
//! namespaces of this host.
//!
//! ```text
//!      client 10.0.0.1          guest 10.0.0.2, on one of the two
//!          |                    |                        |
//!          |              TAP in `primary`         TAP in `secondary`
//!          |                    |  \________link_________/  |
//!          +------ bridge ------+---------------------------+
//! ```
//!
//! Whoever makes one must be in namespaces of their own ([`enclosed`]): then it works for ordinary users, too, and the kernel takes
//! everything away in the end.

mod enclosure;
mod error;
mod namespace;
mod network;
mod program;
mod redis_benchmark;
mod usage;

pub use enclosure::enclosed;
pub use error::LabError;
pub use namespace::{Namespace, Traffic};
pub use network::{CLIENT, GUEST, LINK, Network, Site, TAP};
pub use program::{package, program};
pub use redis_benchmark::Measured;
pub use usage::{cpu_time, resident, thread_time};
