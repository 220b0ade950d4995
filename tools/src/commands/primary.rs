//! `echovisor primary`: runs a guest against the real world, and has it protected by a secondary.

use std::{sync::Arc, time::Instant};

use clap::Args;
use echovisor_event::{NodeId, Term, VmId};
use echovisor_log::{
    arbiter::{
        CasOutcome, Record,
        rules::{self, RuleError},
    },
    link::{Address, Fingerprint, Listener},
    store::Writer,
};
use echovisor_recorder::{
    Archive, HostClock, Journal,
    gate::Gate,
    primary::{self, Cluster, Node},
};

use crate::{
    cli::{Ack, GuestArgs, NetArgs, NodeArgs, SandboxArgs, StoreArgs, block_on},
    failure::{Exit, Failure},
    node::{self, Controls, Former, Launch, Origin, Past, Reach, Role, Shelf, Station},
    sandbox,
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

    /// The guest's history.
    #[command(flatten)]
    pub store: StoreArgs,

    /// Go on from the store though it may lack the last moments that clients have seen
    #[arg(long, requires = "folder")]
    pub accept_rollback: bool,

    /// Give the guest's console what comes in on stdin
    #[arg(long)]
    pub stdin: bool,

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
    let port = node::port(&args.net.net)?;
    let fingerprint = node::fingerprint()?;
    let keys = args.node.keys()?;
    let listener = match &args.listen {
        Some(address) => Some(Arc::new(Listener::bind(address, keys.clone()).await?)),
        None => None,
    };
    let (sender, commands) = node::primary_commands();
    let controls = Controls::new(args.node.control.as_deref(), Reach::Primary(sender, None))?;
    sandbox::confine(args.sandbox.no_seccomp)?;

    let folder = args.store.folder.as_deref();
    let past = folder.map(|folder| Past::open(folder, &fingerprint)).transpose()?.flatten();
    if let Some(past) = &past {
        past.must_fit(&args.guest, &args.net)?;
    }
    let me = past.as_ref().and_then(Past::node).map_or_else(node::node_id, Ok)?;
    let vm = past.as_ref().map_or_else(|| node::random().map(VmId), |past| Ok(past.vm()))?;
    let station = Station {
        me,
        fingerprint: fingerprint.clone(),
        port,
        listener,
        join: args.join.clone(),
        keys,
        node: args.node.clone(),
        store: args.store.clone(),
        controls,
        reports: args.node.reports()?,
    };
    let claim = match Holder::ask(args, station.listener.clone(), vm, me, past.as_ref())? {
        Holder::Unasked => None,
        Holder::Me(claim) => Some(*claim),
        Holder::Other { record, join } => {
            let role =
                station.joining(record, join, Former { shelf: past.map(Shelf::from), ..Former::default() });
            return station.run(role).await;
        }
    };
    let mut origin = match past {
        Some(past) => Origin::past(past, &args.guest)?,
        None => Origin::boot((&args.guest, &args.net), folder, vm, &fingerprint)?,
    };
    let term = claim.as_ref().map_or_else(|| origin.term(), |claim| claim.cluster.record.term);
    if let Some((store, _)) = &mut origin.store {
        // Before the arbiter knows of it: a record of a term that is not written here tells of a history that is not here.
        store.see_term(term)?;
        let (arbitrated, durable) = (claim.is_some(), args.store.ack == Ack::Disk);
        store.set_writer(Writer { node: me, arbitrated, durable })?;
    }
    // The arbiter comes last: who cannot listen, answer, write or go on must not hold the guest.
    let cluster = claim.map(Claim::stake).transpose()?.map(|cluster| (cluster, fingerprint));

    let primary = live(args, &station, origin, term, cluster, commands)?;
    station.run(Role::Primary(Box::new(primary))).await
}

/// Runs the guest against the real world.
fn live(
    args: &PrimaryArgs,
    station: &Station,
    origin: Origin,
    term: Term,
    cluster: Option<(Cluster, Fingerprint)>,
    commands: flume::Receiver<primary::Command>,
) -> Result<node::Primary, Failure> {
    let (start, boots) = (origin.start(term), origin.boots());
    let Origin { machine, config, program, store, unconfirmed } = origin;
    let gate = Arc::new(Gate::new(node::outlet(station.port.clone())));
    let (mut archive, mut keeper) = (None, None);
    if let Some((store, snapshots)) = store {
        archive = Some(match args.store.ack {
            Ack::Memory => Archive::new(store, start)?,
            Ack::Disk => Archive::awaited(store, start, gate.clone())?,
        });
        keeper = Some(args.store.keep.keeper(snapshots, machine.position()));
    }
    // At least once: what an earlier run may not have sent comes first.
    unconfirmed.resend(|at, effect| gate.pass(at, effect));
    let logged = cluster.is_some() || archive.is_some();
    let guest = node::launch(Launch {
        clock: HostClock::new(machine.clock(), Instant::now()),
        machine,
        port: station.port.clone(),
        gate,
        journal: if logged { Journal::new() } else { Journal::unwritten() },
        seed: boots.then(node::random).transpose()?,
        slept: !boots,
        cadence: Some(args.node.checkpoints.cadence()),
        policy: args.node.policy.policy(),
        kept: archive.is_some(),
        held: args.wait_for_secondary,
        stdin: args.stdin,
    })?;
    let mut node = Node::new(station.me, guest, config.to_bytes(), start, archive, cluster)
        .compressing(start, args.node.policy.compression());
    if let Some(keeper) = keeper {
        node = node.keeping(keeper);
    }
    Ok(node::Primary { node, commands, program, mac: config.mac })
}

/// Who may run the guest, as the arbiter's record stands.
enum Holder {
    /// No arbiter needs to be asked.
    Unasked,
    /// This node, if the record stays as it is.
    Me(Box<Claim>),
    /// Another node has gone on with it, and may be joined here.
    Other { record: Record, join: Address },
}

/// The arbiter's record as this node wants it.
struct Claim {
    present: Option<Record>,
    cluster: Cluster,
}

impl Holder {
    /// Asks the arbiter, where there is one.
    fn ask(
        args: &PrimaryArgs,
        listener: Option<Arc<Listener>>,
        vm: VmId,
        me: NodeId,
        past: Option<&Past>,
    ) -> Result<Holder, Failure> {
        if listener.is_none() && (args.store.folder.is_none() || args.node.arbiter.is_none()) {
            past.map_or(Ok(()), |past| past.may_go_on_alone(args.accept_rollback))?;
            return Ok(Holder::Unasked);
        }
        let arbiter = args.node.arbiter("--listen")?;
        let present = arbiter.read()?;
        let wanted = match past {
            Some(past) => past.record(present.as_ref(), me, args.accept_rollback),
            None => rules::start(present.as_ref(), vm, me),
        };
        let record = match (wanted, &args.join) {
            (Err(RuleError::Held(record)), Some(join)) if past.is_some() && record.vm == vm => {
                return Ok(Holder::Other { record, join: join.clone() });
            }
            (wanted, _) => wanted?,
        };
        let cluster = Cluster { listener, arbiter, record, timing: args.node.timing() };
        Ok(Holder::Me(Box::new(Claim { present, cluster })))
    }
}

impl Claim {
    /// Becomes the primary.
    fn stake(self) -> Result<Cluster, Failure> {
        match self.cluster.arbiter.compare_and_set(self.present.as_ref(), &self.cluster.record)? {
            CasOutcome::Won => Ok(self.cluster),
            CasOutcome::Lost(_) => {
                let hint = "two nodes were started at the same moment; `status` tells which one runs";
                Err(Failure::new("another node has become the primary", hint))
            }
        }
    }
}
