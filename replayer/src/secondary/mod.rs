//! The node that follows a primary: what surrounds the replaying thread.

mod engine;
mod guest;
mod inbox;
mod node;
pub mod protocol;
mod status;
mod takeover;

pub use engine::{Engine, Order};
pub use guest::{Followed, MakeCpu};
pub use node::{Command, Node, NodeError, Outcome, Settings};
pub use status::Status;
pub use takeover::{Promotion, Times};
