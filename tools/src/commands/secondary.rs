//! `echovisor secondary`: follows a primary in lockstep, and takes over when it is gone.

use std::sync::Arc;

use clap::Args;
use echovisor_log::link::{Address, Listener};

use crate::{
    cli::{NetArgs, NodeArgs, SandboxArgs, StoreArgs, block_on},
    failure::{Exit, Failure},
    node::{self, Controls, Former, Reach, Role, Shelf, Station},
    sandbox,
};

/// The arguments of `echovisor secondary`. It is given no guest: that comes from the primary.
#[derive(Args, Clone, Debug)]
pub struct SecondaryArgs {
    /// Where the primary listens, `HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "ADDR")]
    pub join: Address,

    /// The network that the guest is connected to after a takeover.
    #[command(flatten)]
    pub net: NetArgs,

    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// After a takeover, wait for a new secondary at this address
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Address>,

    /// The guest's history after a takeover.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What the program allows itself.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// Follows the primary; when that is gone, runs the guest; and so on until it ends.
///
/// # Errors
/// If the primary does not want this node, or the guest cannot go on.
pub fn run(args: &SecondaryArgs) -> Result<Exit, Failure> {
    args.node.validate()?;
    block_on(secondary(args))
}

async fn secondary(args: &SecondaryArgs) -> Result<Exit, Failure> {
    // What a takeover needs is looked for now: later is too late.
    let port = node::port(&args.net.net)?;
    args.node.arbiter("a secondary")?;
    let keys = args.node.keys()?;
    let listener = match &args.listen {
        Some(address) => Some(Arc::new(Listener::bind(address, keys.clone()).await?)),
        None => None,
    };
    let (sender, commands) = node::secondary_commands();
    let controls = Controls::new(args.node.control.as_deref(), Reach::Secondary(sender))?;
    let (me, join) = (node::node_id()?, args.join.clone());
    let station = Station {
        me,
        fingerprint: node::fingerprint()?,
        port,
        listener,
        join: Some(join.clone()),
        keys,
        node: args.node.clone(),
        store: args.store.clone(),
        controls,
        reports: args.node.reports()?,
    };
    sandbox::confine(args.sandbox.no_seccomp)?;
    let folder = args.store.folder.as_deref();
    let shelf = folder.map(|folder| Shelf::open(folder, &station.fingerprint)).transpose()?;
    let former = Former { shelf, ..Former::default() };
    let role = node::Secondary { join, known: None, commands, former };
    station.run(Role::Secondary(Box::new(role))).await
}
