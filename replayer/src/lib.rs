//! The secondary, and offline replay: the same machine, run against the log.

mod delta;
mod follower;
mod history;
mod replay;
mod rewind;
pub mod secondary;
mod spoil;
mod unconfirmed;
mod verified;

pub use delta::DeltaError;
pub use follower::{FollowError, Follower, Progress, Reached};
pub use history::{Arrived, Fed, History, Incoming};
pub use replay::{Due, Replay, ReplayError, Witness};
pub use rewind::{Rewind, Rewindable};
pub use spoil::{Spoil, SpoilError};
pub use unconfirmed::Unconfirmed;
pub use verified::RollBackError;
