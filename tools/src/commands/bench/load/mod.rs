//! Loads: clients that ask something of the guest for a while, and tell how it went.

mod asked;
mod bulk;
mod closed_loop;
mod compute;
mod open_loop;
mod redis_benchmark;
mod wrk;

use std::{
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

pub(super) use bulk::Bulk;
pub(super) use compute::Compute;
pub(super) use open_loop::OpenLoop;
pub(super) use redis_benchmark::RedisBenchmark;
pub(super) use wrk::Pages;

use crate::{
    failure::Failure,
    lab::{LabError, Namespace, program},
};

/// The load before anything is measured, as a share of the time.
const WARM_UP: f64 = 0.2;

/// How long the last replies are waited for.
const GRACE: Duration = Duration::from_secs(2);

/// How long a client may take, whose load is to last so long: what it does was measured before, and it is killed only where everything
/// stands still.
fn patience(time: Duration) -> Duration {
    Duration::from_secs(20) + 4 * time
}

/// What a load stands on.
pub(super) struct Ground<'a> {
    /// Where clients live.
    pub(super) client: &'a Namespace,
    /// How long the load lasts.
    pub(super) time: Duration,
    /// Requests per second, of a load that has a rate of its own.
    pub(super) arrivals: u32,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) requests: Option<u64>,
    pub(super) per_second: Option<f64>,
    pub(super) latency: Option<Latency>,
    /// Requests without an answer in the end.
    pub(super) unanswered: u64,
    pub(super) iterations_per_second: Option<f64>,
}

/// Response times, µs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Not every client tells.
    pub(super) p999: Option<f64>,
}

/// Something that is asked of the guest.
pub(super) trait Load {
    /// What the guest must hold before, however fast the link is later.
    fn fill(&mut self, _: &Ground) -> Result<(), Failure> {
        Ok(())
    }

    /// What else must be there before: connections, an idea of how fast it will go.
    fn prepare(&mut self, _: &Ground) -> Result<(), Failure> {
        Ok(())
    }

    /// The load itself.
    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure>;
}

/// Nobody asks anything.
pub(super) struct Idle;

impl Load for Idle {
    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        thread::sleep(ground.time);
        Ok(Outcome::default())
    }
}

/// A program that runs to its end where clients live, and is killed if that does not come: redis-benchmark tries for ever to reach a
/// server that is gone.
fn start(ground: &Ground, name: &str, arguments: &str) -> Result<Child, Failure> {
    let mut command = Command::new(program("timeout")?);
    command.args(["--signal=KILL", &patience(ground.time).as_secs().to_string()]);
    command
        .arg(program(name)?)
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    ground.client.house(&mut command)?;
    let started = command.spawn();
    started.map_err(|source| LabError::Start { program: name.to_owned(), source }.into())
}

/// What a program printed; it must have ended well.
fn finish(name: &str, child: Child) -> Result<String, Failure> {
    let output = child.wait_with_output();
    let Output { status, stdout, stderr } =
        output.map_err(|source| LabError::Start { program: name.to_owned(), source })?;
    let (printed, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() && !printed.contains("Error") && !said.contains("Error") {
        return Ok(printed.into_owned());
    }
    let said = format!("{}\n{}", printed.trim(), said.trim());
    Err(Failure::new(
        format!("{name} failed ({status}): {}", said.trim()),
        "see whether the guest still answers",
    ))
}

/// What a program printed is not what it prints.
fn unclear(name: &str, printed: &str) -> Failure {
    let hint = "redis-benchmark is understood from version 7 on, wrk in version 4";
    Failure::new(format!("{name} printed something else than its results:\n{printed}"), hint)
}
