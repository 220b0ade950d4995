//! The vocabulary of Echovisor: what happens to a guest, what it does, and where.
//!
//! A guest is a deterministic state machine. An [`Event`] is an input that it could not have computed for itself, an
//! [`Effect`] is what it does to the outside, and a [`Position`] says where in its execution either belongs. Every other
//! crate speaks in these words; this one depends on none of them.

mod digest;
mod effect;
mod event;
mod identity;
pub mod limits;
mod position;
mod time;

pub use digest::Digest;
pub use effect::Effect;
pub use event::{Event, Kind};
pub use identity::{NodeId, Term, VmId};
pub use position::{Position, Stamped};
pub use time::Nanos;
