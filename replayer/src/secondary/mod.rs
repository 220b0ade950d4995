//! The node that follows a primary: what surrounds the replaying thread.

mod guest;
mod inbox;
mod node;
pub mod protocol;
mod takeover;

pub use guest::{Followed, MakeCpu};
pub use node::{Command, Node, NodeError, Outcome, Settings, Status};
pub use takeover::{Promotion, Times};
