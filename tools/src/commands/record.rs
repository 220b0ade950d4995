//! `echovisor record`: runs a guest with a log of its own and no peer.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use echovisor_event::{Position, Term, VmId};
use echovisor_log::{
    SegmentStart,
    store::{Header, Store},
};
use echovisor_machine::boot::boot;
use echovisor_recorder::{
    Archive, HostClock, Journal, Policy,
    gate::Gate,
    primary::{Node, Outcome},
};

use crate::{
    cli::{CheckpointArgs, GuestArgs, KeepArgs, NetArgs, SandboxArgs, block_on},
    failure::{Exit, Failure},
    node::{self, Controls, Launch, Reach},
    sandbox, snapshots,
    summary::Summary,
};

/// The arguments of `echovisor record`.
#[derive(Args, Clone, Debug)]
// Nobody follows who could be compared, or could need the state: a replay can wait, and the guest goes faster.
#[command(mut_arg("checkpoint_every", |every| every.default_value("30s")))]
#[command(mut_arg("snapshot_every", |every| every.default_value("30s")))]
pub struct RecordArgs {
    /// The guest.
    #[command(flatten)]
    pub guest: GuestArgs,

    /// The guest's network.
    #[command(flatten)]
    pub net: NetArgs,

    /// Write the recording into this folder, which must not hold one yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Give the guest's console what comes in on stdin
    #[arg(long)]
    pub stdin: bool,

    /// Answer `status`, `snapshot` and `stop` on this socket, which only its owner can use
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,

    /// How often a replay is compared.
    #[command(flatten)]
    pub checkpoints: CheckpointArgs,

    /// Which snapshots the recording holds.
    #[command(flatten)]
    pub keep: KeepArgs,

    /// What the program allows itself.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// Runs the guest until it ends or is stopped.
///
/// # Errors
/// If the guest cannot be started, or the recording cannot be written.
pub fn run(args: &RecordArgs) -> Result<Exit, Failure> {
    block_on(record(args))
}

async fn record(args: &RecordArgs) -> Result<Exit, Failure> {
    let port = node::port(&args.net.net)?;
    let program = node::program(&args.guest)?;
    let config = node::config(&args.guest, &args.net, &program);
    let machine = boot(&config, &program)?;
    let header = Header {
        vm: VmId(node::random()?),
        fingerprint: node::fingerprint()?,
        guest: config.program,
        machine: config.to_bytes(),
    };
    let store = Store::create(&args.out, &header)?;
    let start = SegmentStart::first(Term(1));
    let snapshots = snapshots::begin(&store.snapshots_dir(), &machine)?;

    let (sender, commands) = node::primary_commands();
    let controls = Controls::new(args.control.as_deref(), Reach::Primary(sender, None))?;

    sandbox::confine(args.sandbox.no_seccomp)?;
    let guest = node::launch(Launch {
        machine,
        port: port.clone(),
        gate: Arc::new(Gate::new(node::outlet(port))),
        journal: Journal::new(),
        clock: HostClock::starting(),
        seed: Some(node::random()?),
        slept: false,
        cadence: Some(args.checkpoints.cadence()),
        policy: Policy::default(),
        kept: true,
        held: false,
        stdin: args.stdin,
    })?;
    let signals = guest.signals.clone();
    let archive = Some(Archive::new(store, start)?);
    let running = Node::new(node::node_id()?, guest, config.to_bytes(), start, archive, None)
        .keeping(args.keep.keeper(snapshots, Position::BOOT));
    let outcome = running.run(commands).await;
    controls.close().await;
    let outcome = outcome?;
    Summary::of(&signals).write(&args.out)?;
    match outcome {
        Outcome::Ended(how) => node::ended(how, &program),
        // Who has no peer asks no arbiter.
        Outcome::Fenced { record, .. } => Err(node::superseded(&record)),
    }
}
