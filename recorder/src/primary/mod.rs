//! The node that runs a guest: what surrounds the guest's thread.

mod cluster;
mod door;
mod engine;
mod giving;
mod node;
mod outcome;
mod peer;
pub mod protocol;
mod status;

pub use cluster::Cluster;
pub use door::Refused;
pub use engine::{Encoded, Engine, Order, Promise, Ticket};
pub use node::{Command, Guest, Left, Node};
pub use outcome::{NodeError, Outcome};
pub use status::Status;
