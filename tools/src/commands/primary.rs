//! `echovisor primary`: runs a guest against the real world, and has it protected by a secondary.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use echovisor_event::{NodeId, Term, VmId};
use echovisor_log::{
    SegmentStart,
    arbiter::{CasOutcome, Record, rules},
    link::{Address, Listener},
    store::{Header, Store},
};
use echovisor_machine::boot::boot;
use echovisor_recorder::{
    Archive, HostClock, Journal,
    gate::Gate,
    primary::{Cluster, Node},
};

use crate::{
    cli::{GuestArgs, KeepArgs, NetArgs, NodeArgs, Policy, SandboxArgs, block_on},
    failure::{Exit, Failure},
    node::{self, Controls, Launch, Reach, Role, Station},
    sandbox, snapshots,
};

/// The arguments of `echovisor primary`.
#[derive(Args, Clone, Debug)]
pub struct PrimaryArgs {
    /// The guest.
    #[command(flatten)]
    pub guest: GuestArgs,

    /// The guest's network.
    #[command(flatten)]
    pub net: NetArgs,

    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Wait for a secondary at this address, `HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Address>,

    /// When another node has taken over, join it at this address if it has not said where it listens
    #[arg(long, value_name = "ADDR", requires = "listen")]
    pub join: Option<Address>,

    /// Keep the log in this folder, as `record` does
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,

    /// Which snapshots that folder holds.
    #[command(flatten)]
    pub keep: KeepArgs,

    /// Give the guest's console what comes in on stdin
    #[arg(long)]
    pub stdin: bool,

    /// When to send state instead of events
    #[arg(long, value_enum, default_value_t = Policy::Replay)]
    pub policy: Policy,

    /// Start the guest only once it is protected
    #[arg(long, requires = "listen")]
    pub wait_for_secondary: bool,

    /// What the program allows itself.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// Runs the guest, and follows it when another node has it, until it ends or is stopped.
///
/// # Errors
/// If the guest cannot be started or cannot go on.
pub fn run(args: &PrimaryArgs) -> Result<Exit, Failure> {
    args.node.validate()?;
    block_on(primary(args))
}

async fn primary(args: &PrimaryArgs) -> Result<Exit, Failure> {
    let me = node::node_id()?;
    let vm = VmId(node::random()?);
    let port = node::port(&args.net.net)?;
    let program = node::program(&args.guest)?;
    let config = node::config(&args.guest, &args.net, &program);
    let machine = boot(&config, &program)?;
    let fingerprint = node::fingerprint()?;

    // The arbiter comes last: who cannot listen, answer or write must not hold the guest.
    let keys = args.node.keys()?;
    let listener = match &args.listen {
        Some(address) => Some(Arc::new(Listener::bind(address, keys.clone()).await?)),
        None => None,
    };
    let (sender, commands) = node::primary_commands();
    let controls = Controls::new(args.node.control.as_deref(), Reach::Primary(sender, None))?;
    let claim = listener.clone().map(|listener| Claim::new(args, listener, vm, me)).transpose()?;
    let store = match &args.store {
        Some(folder) => {
            let header = Header {
                vm,
                fingerprint: fingerprint.clone(),
                guest: config.program,
                machine: config.to_bytes(),
            };
            let store = Store::create(folder, &header)?;
            let snapshots = snapshots::begin(&store.snapshots_dir(), &machine)?;
            Some((store, args.keep.keeper(snapshots)))
        }
        None => None,
    };
    let cluster = claim.map(Claim::stake).transpose()?;
    let term = cluster.as_ref().map_or(Term(1), |cluster| cluster.record.term);
    let start = SegmentStart::first(term);
    let (archive, keeper) = store.map(|(store, keeper)| (Archive::new(store, start), keeper)).unzip();
    let cluster = cluster.map(|cluster| (cluster, fingerprint.clone()));

    let logged = cluster.is_some() || archive.is_some();
    sandbox::confine(args.sandbox.no_seccomp)?;
    let guest = node::launch(Launch {
        machine,
        port: port.clone(),
        gate: Arc::new(Gate::new(node::outlet(port.clone()))),
        journal: if logged { Journal::new() } else { Journal::unwritten() },
        clock: HostClock::starting(),
        seed: Some(node::random()?),
        cadence: Some(node::CHECKPOINT_CADENCE),
        held: args.wait_for_secondary,
        stdin: args.stdin,
    })?;
    let mut node = Node::new(me, guest, config.to_bytes(), start, archive, cluster);
    if let Some(keeper) = keeper {
        node = node.keeping(keeper);
    }
    let station = Station {
        me,
        fingerprint,
        port,
        listener,
        join: args.join.clone(),
        keys,
        node: args.node.clone(),
        controls,
    };
    let primary = node::Primary { node, commands, program, mac: config.mac };
    station.run(Role::Primary(Box::new(primary))).await
}

/// The arbiter's record as this node wants it.
struct Claim {
    present: Option<Record>,
    wanted: Record,
    cluster: Cluster,
}

impl Claim {
    /// Asks whether this node may be the primary.
    fn new(args: &PrimaryArgs, listener: Arc<Listener>, vm: VmId, me: NodeId) -> Result<Claim, Failure> {
        let arbiter = args.node.arbiter("--listen")?;
        let present = arbiter.read()?;
        let wanted = rules::start(present.as_ref(), vm, me)?;
        let cluster =
            Cluster { listener: Some(listener), arbiter, record: wanted, timing: args.node.timing() };
        Ok(Claim { present, wanted, cluster })
    }

    /// Becomes the primary.
    fn stake(self) -> Result<Cluster, Failure> {
        match self.cluster.arbiter.compare_and_set(self.present.as_ref(), &self.wanted)? {
            CasOutcome::Won => Ok(self.cluster),
            CasOutcome::Lost(_) => {
                let hint = "two nodes were started at the same moment; `status` tells which one runs";
                Err(Failure::new("another node has become the primary", hint))
            }
        }
    }
}
