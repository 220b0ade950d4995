//! `echovisor snapshot`: has a running node take a snapshot of its guest.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    cli::{block_on, print_result},
    commands::status::ControlArgs,
    control::{self, ControlError, Request},
    failure::{Exit, Failure},
};

/// The arguments of `echovisor snapshot`.
#[derive(Args, Clone, Debug)]
pub struct SnapshotArgs {
    /// The node.
    #[command(flatten)]
    pub control: ControlArgs,

    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What was taken. Scripts rely on the names.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// Where.
    pub(crate) position: u64,
}

/// Asks the node for a snapshot. Its answer comes when the snapshot is on disk.
///
/// # Errors
/// If the node can't be reached, keeps no snapshots, or cannot write one.
pub fn run(args: &SnapshotArgs) -> Result<Exit, Failure> {
    let socket = &args.control.socket;
    let answer = block_on(async { Ok(control::ask(socket, &Request::Snapshot).await?) })?;
    let taken: Taken = serde_json::from_value(answer).map_err(|_| ControlError::Foreign(socket.clone()))?;
    print_result(args.json, &taken, || format!("a snapshot of position {}", taken.position))?;
    Ok(Exit::Done)
}
