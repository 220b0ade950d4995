//! `echovisor promote`: swaps the roles of the two nodes of a protected guest.

use clap::Args;

use crate::{
    cli::block_on,
    commands::status::ControlArgs,
    control::{self, Request},
    failure::{Exit, Failure},
    output,
};

/// The arguments of `echovisor promote`.
#[derive(Args, Clone, Debug)]
pub struct PromoteArgs {
    /// Either of the two nodes.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Asks the node for a switchover. Its answer comes when the other role is taken.
///
/// # Errors
/// If the node can't be reached, or if the roles stay as they are.
pub fn run(args: &PromoteArgs) -> Result<Exit, Failure> {
    block_on(async { Ok(control::ask(&args.control.socket, &Request::Promote).await?) })?;
    output::say("switched over");
    Ok(Exit::Done)
}
