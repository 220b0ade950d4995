//! `echovisor stop`: ends a node and its guest's run.

use clap::Args;

use crate::{
    cli::block_on,
    commands::status::ControlArgs,
    control::{self, Request},
    failure::{Exit, Failure},
    output,
};

/// The arguments of `echovisor stop`.
#[derive(Args, Clone, Debug)]
pub struct StopArgs {
    /// The node.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Asks the node to stop. Its answer comes when everything that the guest did has passed the commit gate.
///
/// # Errors
/// If the node can't be reached, or refuses.
pub fn run(args: &StopArgs) -> Result<Exit, Failure> {
    block_on(async { Ok(control::ask(&args.control.socket, &Request::Stop).await?) })?;
    output::say("stopped");
    Ok(Exit::Done)
}
