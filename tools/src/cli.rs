//! The command line: the commands, and the groups of arguments that several of them share.

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use echovisor_event::Position;
use echovisor_log::{arbiter, link::Keys};
use echovisor_machine::MachineConfig;
use echovisor_recorder::{Cadence, Keeper, primary::protocol::Timing};
use echovisor_replayer::secondary::Report;
use echovisor_snapshot::store::{Keep, PageStore};
use humantime::Duration;

use crate::{
    commands::{
        bench, check_host, demo, inspect, keygen, primary, promote, record, replay, secondary, snapshot,
        status, stop,
    },
    failure::{Exit, Failure},
    key_file, output,
    policy::PolicyArgs,
    reports,
    values::{Arbiter, Every, Mac, MemorySize, Net},
};

/// Keeps a virtual machine alive through the loss of its host, by recording it and replaying it elsewhere.
#[derive(Debug, Parser)]
#[command(name = "echovisor", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Say more on stderr; give it twice or three times for more. RUST_LOG, where set, decides instead
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 100)]
    pub verbose: u8,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 usage, 3 divergence found, 4 corrupt input, 5 host unfit";

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: two nodes, a client, kill -9 of the primary, and a verdict
    Demo(demo::DemoArgs),
    /// See what a recording holds
    Inspect(inspect::InspectArgs),
    /// Make a key pair for a node, so that its link can leave this host
    Keygen(keygen::KeygenArgs),
    /// Run a guest against the real world, protected by a secondary
    Primary(primary::PrimaryArgs),
    /// Follow a primary in lockstep, and take over when it is gone
    Secondary(secondary::SecondaryArgs),
    /// Run a guest and write down what it could not have computed for itself
    Record(record::RecordArgs),
    /// Run a recording again, exactly
    Replay(replay::ReplayArgs),
    /// Have a running node take a snapshot of its guest
    Snapshot(snapshot::SnapshotArgs),
    /// Ask a running node how it is
    Status(status::StatusArgs),
    /// Swap the roles of the two nodes of a protected guest, which notices nothing
    Promote(promote::PromoteArgs),
    /// Measure what each way to protect a guest costs: network, response time, memory, throughput
    Bench(bench::BenchArgs),
    /// Ask a running node to end; a guest with a --store goes on when it is started again, any other is gone
    Stop(stop::StopArgs),
    /// See what this host offers, and what is missing, with the remedy
    CheckHost(check_host::CheckHostArgs),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// Whatever stands in the way, with a hint and an exit code.
    pub fn run(self) -> Result<Exit, Failure> {
        match self {
            Command::Bench(args) => bench::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Keygen(args) => keygen::run(&args),
            Command::Primary(args) => primary::run(&args),
            Command::Secondary(args) => secondary::run(&args),
            Command::Record(args) => record::run(&args),
            Command::Replay(args) => replay::run(&args),
            Command::Snapshot(args) => snapshot::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Promote(args) => promote::run(&args),
            Command::Stop(args) => stop::run(&args),
            Command::CheckHost(args) => check_host::run(&args),
        }
    }
}

impl Cli {
    /// Reads the command line of this process. Help and version are printed, and end the process well.
    ///
    /// # Errors
    /// If the command line is not understood.
    pub fn from_arguments() -> Result<Cli, Failure> {
        Cli::from_list(std::env::args_os())
    }

    fn from_list(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Failure> {
        Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => usage(&error),
        })
    }
}

/// What clap says, in the form of this program's own errors: its pointer to the help becomes the hint.
fn usage(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let text = text.trim().trim_start_matches("error: ");
    let (what, hint) = match text.rsplit_once("\n\nFor more information, try ") {
        Some((what, help)) => (what, format!("for more information, try {help}")),
        None => (text, "for more information, try '--help'.".to_owned()),
    };
    Failure::new(what, hint).with_exit(Exit::Usage)
}

const DEFAULT_GUEST: &str = "kv";
const DEFAULT_MEMORY: &str = "64M";
const DEFAULT_MAC: &str = "02:00:00:00:00:02";

/// Which guest runs.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct GuestArgs {
    /// A built-in guest
    #[arg(long = "guest", value_name = "NAME", default_value = DEFAULT_GUEST)]
    pub name: String,

    /// What the guest is told, such as "ip=10.0.0.2/24 gw=10.0.0.1"
    #[arg(long = "guest-args", value_name = "ARGS", default_value = "")]
    pub arguments: String,

    /// The guest's memory
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_MEMORY)]
    pub memory: MemorySize,
}

impl GuestArgs {
    /// The first option that is given and does not fit `config`, as that has it.
    #[must_use]
    pub fn contradiction(&self, config: &MachineConfig) -> Option<String> {
        let memory = MemorySize(config.memory);
        if self.name != DEFAULT_GUEST && self.name != config.guest {
            Some(format!("--guest {}", config.guest))
        } else if !self.arguments.is_empty() && self.arguments != config.arguments {
            Some(format!("--guest-args {:?}", config.arguments))
        } else if self.memory.to_string() != DEFAULT_MEMORY && self.memory != memory {
            Some(format!("--memory {memory}"))
        } else {
            None
        }
    }
}

/// What the guest's network device is connected to.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct NetArgs {
    /// `tap:NAME`, `unix:PATH` (frames behind a 4-byte big-endian length) or `none`
    #[arg(long, value_name = "NET", default_value = "none")]
    pub net: Net,

    /// The hardware address of the guest's network device
    #[arg(long, value_name = "MAC", default_value = DEFAULT_MAC)]
    pub mac: Mac,
}

impl NetArgs {
    /// As [`GuestArgs::contradiction`]. A guest with a network device needs a network, and one without can use none.
    #[must_use]
    pub fn contradiction(&self, config: &MachineConfig) -> Option<String> {
        match (config.mac, &self.net) {
            (None, Net::None) => None,
            (None, _) => Some("no --net".to_owned()),
            (Some(_), Net::None) => Some("--net".to_owned()),
            (Some(mac), _) if self.mac.to_string() != DEFAULT_MAC && self.mac.0 != mac => {
                Some(format!("--mac {}", Mac(mac)))
            }
            (Some(_), _) => None,
        }
    }
}

/// Where the guest's history is kept while it runs here.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct StoreArgs {
    /// Keep the guest's history in this folder while the guest runs here. What it holds already a primary goes on from, after a
    /// stop or a crash of the node, and a secondary need not be sent
    #[arg(long = "store", value_name = "DIR")]
    pub folder: Option<PathBuf>,

    /// What makes an effect safe, so that it may leave: with `disk` not before the log behind it is on disk
    #[arg(long, value_enum, default_value_t = Ack::Memory, requires_if("disk", "folder"))]
    pub ack: Ack,

    /// Which snapshots that folder holds.
    #[command(flatten)]
    pub keep: KeepArgs,
}

/// Which snapshots of the guest a recording holds, so that a replay can begin at any of them.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct KeepArgs {
    /// Take a snapshot every so many positions, or after so much time, such as 10s, in which the guest has moved
    #[arg(long, value_name = "POSITIONS|TIME", default_value = "10s")]
    pub snapshot_every: Every,

    /// Keep only so many of the newest snapshots, and the first one
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,

    /// Keep only snapshots that are no older, and the first one; with --keep, either is reason enough
    #[arg(long, value_name = "TIME")]
    pub keep_for: Option<Duration>,
}

impl KeepArgs {
    /// Writes snapshots to `store`, behind position `last`, up to where it has what it needs.
    #[must_use]
    pub fn keeper(&self, store: PageStore, last: Position) -> Keeper {
        let (count, age) = (self.keep.map(|count| count as usize), self.keep_for.map(|age| *age));
        Keeper::new(store, self.snapshot_every.0, Keep { count, age, oldest: true }, last)
    }
}

/// How often a guest's two executions, or a recording and its replay, are proved equal.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct CheckpointArgs {
    /// Compare the guest's whole state after so much time in which the guest has run; or every so many positions, just there, for which
    /// it stands still for longer
    #[arg(long, value_name = "POSITIONS|TIME", default_value = "1s")]
    pub checkpoint_every: Every,
}

impl CheckpointArgs {
    /// When a checkpoint is due.
    #[must_use]
    pub fn cadence(&self) -> Cadence {
        match self.checkpoint_every.0 {
            echovisor_recorder::Every::Positions(positions) => Cadence::Positions(positions),
            echovisor_recorder::Every::Time(time) => Cadence::Busy(time),
        }
    }
}

/// What the program allows itself.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct SandboxArgs {
    /// Allow every system call, for debugging; else those that are needed, and any other ends the process
    #[arg(long)]
    pub no_seccomp: bool,
}

/// What every node needs, whatever its role.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct NodeArgs {
    /// Answer `status`, `promote` and `stop` on this socket, which only its owner can use
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,

    /// Who decides which node may be primary: `file:PATH`, for nodes of one host
    #[arg(long, value_name = "ARBITER")]
    pub arbiter: Option<Arbiter>,

    /// This node's private key, from `echovisor keygen`: the link is encrypted, and may leave this host
    #[arg(long, value_name = "FILE", requires = "peers")]
    pub key: Option<PathBuf>,

    /// Public keys of the nodes that may be at the other end of the link, in either role; can be given several times
    #[arg(long = "peer", value_name = "FILE", requires = "key")]
    pub peers: Vec<PathBuf>,

    /// How often an idle node says that it is alive
    #[arg(long, value_name = "TIME", default_value = "125ms")]
    pub heartbeat: Duration,

    /// How long a silent peer is trusted to be alive
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    pub suspicion: Duration,

    /// How often the two executions are compared.
    #[command(flatten)]
    pub checkpoints: CheckpointArgs,

    /// What the log is made of.
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// As a secondary, keep a report of each divergence in this folder, which only its owner can read
    #[arg(long, value_name = "DIR")]
    pub reports: Option<PathBuf>,
}

impl NodeArgs {
    /// How long the parts of the protocol take on a primary.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { heartbeat: *self.heartbeat, suspicion: *self.suspicion, ..Timing::default() }
    }

    /// Where reports of divergences go to be kept.
    ///
    /// # Errors
    /// If their folder cannot be made.
    pub fn reports(&self) -> Result<Option<flume::Sender<Arc<Report>>>, Failure> {
        self.reports.as_deref().map(reports::keep).transpose()
    }

    /// The keys of the link's ends, if there are any.
    ///
    /// # Errors
    /// If a key cannot be read or used.
    pub fn keys(&self) -> Result<Option<Keys>, Failure> {
        self.key.as_ref().map(|key| key_file::read(key, &self.peers)).transpose()
    }

    /// The arbiter, which `what` cannot do without.
    ///
    /// # Errors
    /// If none was named.
    pub fn arbiter(&self, what: &str) -> Result<Arc<dyn arbiter::Arbiter>, Failure> {
        match &self.arbiter {
            Some(Arbiter::File(path)) => Ok(Arc::new(arbiter::FileArbiter::new(path))),
            None => Err(Failure::new(
                format!("{what} needs an arbiter, so that there is never more than one primary"),
                "add --arbiter file:PATH, with the same PATH for both nodes",
            )
            .with_exit(Exit::Usage)),
        }
    }

    /// Refuses times with which no node could work.
    ///
    /// # Errors
    /// If a living peer would be suspected between two heartbeats.
    pub fn validate(&self) -> Result<(), Failure> {
        self.policy.validate()?;
        if self.heartbeat.is_zero() || *self.suspicion < 2 * *self.heartbeat {
            return Err(Failure::new(
                format!("--suspicion {} is too short for --heartbeat {}", self.suspicion, self.heartbeat),
                "let the suspicion time be at least twice the heartbeat, better four times",
            )
            .with_exit(Exit::Usage));
        }
        Ok(())
    }
}

/// What makes an effect safe, so that it may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// The secondary holds what led to it, if the guest is protected; a lone node's effects leave at once
    Memory,
    /// What led to it is on this node's disk, and the secondary holds it if the guest is protected
    Disk,
}

/// Runs a future to its end, with timers, sockets and signals, on this thread.
///
/// # Errors
/// If the host has no resources left for that.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => Err(Failure::new(
            "cannot start the input and output of the program",
            "see whether the limit of open files (`ulimit -n`) is reached",
        )
        .because(error)),
    }
}

/// Prints a result: as one JSON object if that was asked for, else as text.
///
/// # Errors
/// If stdout can't be written to.
pub fn print_result(
    json: bool,
    data: &impl serde::Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if json { output::print_json(data) } else { output::print(text()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, Failure> {
        Cli::from_list(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_has_one_hint_and_exit_code_2() {
        for line in ["echovisor frobnicate", "echovisor demo --requests many", "echovisor status"] {
            let failure = parse(line).expect_err(line);
            assert_eq!(failure.exit(), Exit::Usage, "{line}");
            let text = failure.to_string();
            assert!(text.starts_with("error: "), "{text}");
            assert_eq!(text.matches("error: ").count(), 1, "{text}");
            assert_eq!(text.matches("\nhint: for more information, try '--help'").count(), 1, "{text}");
            assert!(!text.contains("For more information"), "{text}");
        }
    }

    #[test]
    fn a_node_refuses_to_suspect_a_living_peer() {
        #[derive(Parser)]
        struct Node {
            #[command(flatten)]
            node: NodeArgs,
        }
        let with = |line: &str| Node::parse_from(line.split(' ')).node.validate();
        assert!(with("node").is_ok());
        assert!(with("node --heartbeat 250ms").is_ok());
        assert_eq!(with("node --heartbeat 400ms").expect_err("400 + 400 > 500").exit(), Exit::Usage);
        assert!(with("node --heartbeat 0s").is_err());
    }
}
