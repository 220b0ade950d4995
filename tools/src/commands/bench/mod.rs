//! `echovisor bench`: what each way to protect a guest costs, measured side by side. Real processes on a network of namespaces, real
//! clients, bytes counted at the interfaces.

mod aims;
mod chart;
mod client;
mod figures;
mod link;
mod load;
mod meter;
mod page;
mod placement;
mod plots;
mod policy;
mod relay;
mod report;
mod rerun;
mod results;
mod round;
mod row;
mod stage;
mod tables;
mod trends;
mod workload;
mod yardstick;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Args, value_parser};
use humantime::Duration;
use link::{Link, Rate};
use placement::Placement;
use policy::{Pace, Policy};
use workload::Workload;

use crate::{
    cli::block_on,
    commands::check_host,
    failure::{Exit, Failure},
    interruption::unless_interrupted,
    lab,
};

/// Set in the process that is inside of the namespaces: the folder for its files.
const INSIDE: &str = "ECHOVISOR_BENCH_FOLDER";

/// The arguments of `echovisor bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Compare these ways to protect the guest
    #[arg(long = "policy", value_name = "P,...", value_enum, value_delimiter = ',')]
    #[arg(default_values_t = Policy::DEFAULT)]
    policies: Vec<Policy>,

    /// Under these loads
    #[arg(long = "workload", value_name = "W,...", value_enum, value_delimiter = ',')]
    #[arg(default_values_t = Workload::ALL)]
    workloads: Vec<Workload>,

    /// How often; in each round every policy has its turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// How long each load lasts
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = value_parser!(u32).range(1..=3600))]
    seconds: u32,

    /// Requests in each second of the workload `rate`, whether or not the earlier ones are answered
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    arrivals: u32,

    /// How fast the link between the nodes is: `none` for as fast as it can be, or such as 100mbit
    #[arg(long = "rate", value_name = "RATE,...", value_delimiter = ',', default_value = "none")]
    rates: Vec<Rate>,

    /// How much later what one node sends comes to the other, such as 5ms
    #[arg(long = "delay", value_name = "TIME,...", value_delimiter = ',', default_value = "0ms")]
    delays: Vec<Duration>,

    /// How far the policy `checkpoint` lets its states be from each other
    #[arg(long, value_name = "TIME", default_value = "25ms")]
    epoch: Duration,

    /// How often the policy `replay` sends the state of a guest that runs on without an exit [default: as --epoch, so that both send
    /// the state of a guest that only computes equally often]
    #[arg(long, value_name = "TIME")]
    quantum: Option<Duration>,

    /// Write a row for each run into this file, as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw bytes on the link and response time by policy, or with several links what becomes of answers and response time from link to
    /// link, into this file: an .svg, or a .png, for which rsvg-convert must be installed
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Write all tables, with charts, into this file, which needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl BenchArgs {
    /// How often state is sent.
    fn pace(&self) -> Pace {
        Pace { epoch: *self.epoch, quantum: *self.quantum.unwrap_or(self.epoch) }
    }

    /// Every link that is to be measured.
    fn links(&self) -> Vec<Link> {
        let delays = || self.delays.iter().map(|delay| **delay);
        self.rates.iter().flat_map(|rate| delays().map(|delay| Link { rate: rate.clone(), delay })).collect()
    }
}

/// Measures, and reports.
///
/// # Errors
/// If something cannot be measured here.
pub fn run(args: &BenchArgs) -> Result<Exit, Failure> {
    match env::var_os(INSIDE) {
        Some(folder) => inside(args, Path::new(&folder)),
        None => outside(args),
    }
}

/// Starts this program again, with the same arguments, in namespaces of its own. When that process is gone, so is everything that it
/// has started.
fn outside(args: &BenchArgs) -> Result<Exit, Failure> {
    check_host::require_kvm()?;
    args.workloads.iter().try_for_each(|workload| workload.require_programs())?;
    report::require_programs(args)?;
    let folder = tempfile::Builder::new().prefix("echovisor-bench-").tempdir().map_err(|error| {
        let hint = "let TMPDIR name a folder that can be written to and has a short path";
        Failure::new("cannot make a temporary folder", hint).because(error)
    })?;
    let mut command = lab::enclosed()?;
    command.arg(this_program()?).args(env::args_os().skip(1)).env(INSIDE, folder.path());
    let ended = block_on(unless_interrupted("bench", enclose(command)))?;
    match ended.code().and_then(Exit::of_code) {
        Some(exit) => Ok(exit),
        None => {
            let hint = "see whether something else on this host ends processes, or its memory is exhausted";
            Err(Failure::new(format!("the bench was ended: {ended}"), hint))
        }
    }
}

/// Runs the command to its end, which comes at the latest when this is dropped, or this process is gone.
async fn enclose(command: Command) -> Result<std::process::ExitStatus, Failure> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.status().await.map_err(|error| {
        let hint = "see whether the limit of processes (`ulimit -u`) is reached";
        Failure::new("cannot start the bench in namespaces of its own", hint).because(error)
    })
}

fn inside(args: &BenchArgs, folder: &Path) -> Result<Exit, Failure> {
    let program = this_program()?;
    let placement = Placement::here().and_then(|placement| placement.pin_clients().map(|()| placement));
    let placement = placement.map_err(|error| {
        let hint = "see whether a container or a cpuset limits the processors of this process";
        Failure::new("cannot choose processors for nodes and clients", hint).because(error)
    })?;
    let (results, failure) = block_on(round::measure_all(args, &program, folder, &placement))?;
    report::publish(args, &results, &placement)?;
    failure.map_or(Ok(Exit::Done), Err)
}

/// This very program, to start nodes with.
fn this_program() -> Result<OsString, Failure> {
    let program = env::current_exe().and_then(fs::canonicalize);
    program.map(PathBuf::into_os_string).map_err(|error| {
        let hint = "see whether /proc is mounted";
        Failure::new("cannot find the program itself, to start the nodes with", hint).because(error)
    })
}
