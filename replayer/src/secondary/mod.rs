//! The node that follows a primary: what surrounds the replaying thread.

mod base;
mod engine;
mod guest;
mod inbox;
mod node;
pub mod protocol;
mod report;
mod status;
mod syncing;
mod takeover;

pub use base::Base;
pub use engine::{Engine, Order};
pub use guest::{Followed, MakeCpu, Unmade, make};
pub use node::{Command, Node, NodeError, Outcome, Settings};
pub use report::Report;
pub use status::Status;
pub use syncing::Fetched;
pub use takeover::{Promotion, Times};
