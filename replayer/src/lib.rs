//! The secondary, and offline replay: the same machine, run against the log.

mod follower;
mod history;
mod replay;
pub mod secondary;
mod spoil;
mod unconfirmed;

pub use follower::{FollowError, Follower, Progress, Reached};
pub use history::{Arrived, History, Incoming};
pub use replay::{Due, Replay, ReplayError, Witness};
pub use spoil::{Spoil, SpoilError};
pub use unconfirmed::Unconfirmed;
