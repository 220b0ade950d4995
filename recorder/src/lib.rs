//! The primary: runs a guest against the real world and writes down what the guest could not have computed for itself.
//!
//! *When* something is delivered, flushed or checked is decided here and nowhere else; a replay has no choices.

mod archive;
mod bell;
mod cadence;
mod clock;
mod delta;
pub mod gate;
mod journal;
mod keeper;
mod live;
mod pace;
mod policy;
pub mod port;
pub mod primary;
mod reader;
mod recorder;
mod rounds;
mod signals;
mod ticker;

pub use archive::Archive;
pub use bell::Bell;
pub use cadence::Cadence;
pub use clock::HostClock;
pub use journal::{Entry, FLUSH_AFTER, FLUSH_ALONE_AFTER, Journal, JournalReader};
pub use keeper::{Every, Keeper, KeeperStatus, Kept};
pub use live::{Live, LiveError};
pub use policy::{EPOCH, Policy, QUANTUM};
pub use reader::Reader;
pub use recorder::{Ended, RecordError, Recorder, Request};
pub use rounds::{Captured, Pause, Purpose};
pub use signals::Signals;
pub use ticker::Ticker;
