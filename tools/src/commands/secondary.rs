//! `echovisor secondary`: follows a primary in lockstep, and takes over when it is gone.

use std::{sync::Arc, time::Instant};

use clap::Args;
use echovisor_log::{
    SegmentStart,
    link::{Address, Listener},
};
use echovisor_machine::{
    Memory,
    cpu::{CpuError, kvm::KvmCpu},
};
use echovisor_recorder::{
    HostClock, Journal,
    gate::Gate,
    port::Port,
    primary::{self, Cluster},
};
use echovisor_replayer::secondary::{Node, Outcome, Promotion, Settings, protocol::Timing};

use crate::{
    cli::{NetArgs, NodeArgs, SandboxArgs, block_on},
    failure::{Exit, Failure},
    node::{self, Controls, Launch, Reach, announcement, report::Takeover},
    output, sandbox,
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

    /// What the program allows itself.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// Follows the primary; when that is gone, runs the guest until it ends.
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
    let arbiter = args.node.arbiter("a secondary")?;
    let keys = args.node.keys()?;
    let listener = match &args.listen {
        Some(address) => Some(Listener::bind(address, keys.clone()).await?),
        None => None,
    };
    let settings = Settings {
        me: node::node_id()?,
        join: args.join.clone(),
        keys,
        fingerprint: node::fingerprint()?,
        arbiter: Some(arbiter),
        timing: Timing { suspicion: *args.node.suspicion, ..Timing::default() },
        cpu: confined_cpu,
    };
    let me = settings.me;
    let (sender, commands) = node::secondary_commands();
    let controls = Controls::new(args.node.control.as_deref(), Reach::Secondary(sender))?;
    let idle = port.as_ref().map(|port| node::drain(port.clone())).transpose()?;
    sandbox::confine(args.sandbox.no_seccomp)?;
    let outcome = Node::new(settings).run(&commands).await?;
    match outcome {
        Outcome::Promoted(promotion) => {
            drop(idle);
            live(args, *promotion, me, port, listener, controls).await
        }
        Outcome::Ended(text) => {
            output::say(format_args!("the primary says goodbye: {text}"));
            controls.close().await;
            Ok(Exit::Done)
        }
        Outcome::Stopped => {
            controls.close().await;
            Ok(Exit::Done)
        }
    }
}

/// A processor for the guest that comes, made by the guest's thread: the last for which it needs more than a guest does.
fn confined_cpu(memory: &Memory) -> Result<KvmCpu, CpuError> {
    let cpu = KvmCpu::new(memory)?;
    sandbox::confine_guest().map_err(|error| CpuError::Unfit(error.to_string()))?;
    Ok(cpu)
}

/// Runs the guest as its new primary.
async fn live(
    args: &SecondaryArgs,
    promotion: Promotion<KvmCpu>,
    me: echovisor_event::NodeId,
    port: Option<Port>,
    listener: Option<Listener>,
    controls: Controls,
) -> Result<Exit, Failure> {
    let replayed = Instant::now();
    let Promotion { machine, config, record, unconfirmed, clock, times } = promotion;
    let gate = Arc::new(Gate::new(node::outlet(port.clone())));
    if let (Some(port), Some(mac)) = (&port, config.mac) {
        // Switches learn where the guest is now before its frames come. A frame that is lost now is no reason to stop.
        let _ = port.send(&announcement(mac));
    }
    // At least once: what the old primary may not have sent comes first.
    unconfirmed.resend(|at, effect| gate.pass(at, effect));
    let logged = listener.is_some();
    let arbiter = args.node.arbiter("a primary")?;
    let cluster = Cluster { listener, arbiter, record, timing: args.node.timing() };
    let guest = node::launch(Launch {
        machine,
        port,
        gate,
        journal: if logged { Journal::new() } else { Journal::unwritten() },
        clock: HostClock::new(clock.0, clock.1),
        seed: None,
        cadence: Some(node::CHECKPOINT_CADENCE),
        held: false,
        stdin: false,
    })?;
    let takeover = Takeover::new(&times, replayed.elapsed());
    tracing::warn!("took over in {:.1} ms, {} effects sent again", takeover.total_ms(), unconfirmed.len());
    let (sender, commands) = node::primary_commands();
    controls.switch(Reach::Primary(sender, Some(takeover)));
    let start = SegmentStart::first(record.term);
    let node =
        primary::Node::new(me, guest, config.to_bytes(), start, None, Some((cluster, node::fingerprint()?)));
    let outcome = node.run(commands).await;
    controls.close().await;
    node::ended(outcome?, &[])
}
