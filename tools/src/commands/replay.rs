//! `echovisor replay`: runs a recording again.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use echovisor_event::{Digest, Position};
use echovisor_log::store::Recording;
use echovisor_machine::{Machine, MachineConfig, RunError, cpu::kvm::KvmCpu};
use echovisor_replayer::{FollowError, Follower, Progress, Reached, Replay, ReplayError};
use echovisor_snapshot::{Image, state_digest, store::Snapshots};
use fastrand::Rng;
use serde::Serialize;

use crate::{
    cli::{SandboxArgs, print_result},
    failure::{Exit, Failure},
    node::{
        self,
        history::{Batches, Console, ReadError, machine_of},
    },
    output, sandbox,
    snapshots::{self, Restored, Wanted},
    summary::Summary,
};

/// The arguments of `echovisor replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The recording
    #[arg(value_name = "DIR")]
    pub recording: PathBuf,

    /// Stop at this position instead of at the end; begins at the last snapshot before it, unless --verify is given
    #[arg(long, value_name = "POSITION")]
    pub to: Option<u64>,

    /// Compare the state at every checkpoint with the recorded digest
    #[arg(long)]
    pub verify: bool,

    /// Move the guest into a new virtual machine whenever it has come this many positions further
    #[arg(long, value_name = "POSITIONS", value_parser = clap::value_parser!(u64).range(1..))]
    pub restore_every: Option<u64>,

    /// With --restore-every: at random distances that are so long on average; the seed repeats them
    #[arg(long, value_name = "SEED", requires = "restore_every")]
    pub restore_seed: Option<u64>,

    /// Print the result as one JSON object; what the guest writes on its console is then not shown
    #[arg(long)]
    pub json: bool,

    /// What the program allows itself.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// What a replay found. Scripts rely on the names.
#[derive(Debug, Serialize)]
struct Verdict {
    /// Where the replay began: at a snapshot.
    from: u64,
    /// Where the replay ended.
    positions: u64,
    /// The digest of the state there, if it was asked for by its position.
    digest: Option<Digest>,
    /// Checkpoints whose digest was compared.
    checkpoints: u64,
    /// Deltas that were taken over, in place of an execution.
    deltas: u64,
    /// Differences found.
    mismatches: u64,
    /// Differences that mean nothing.
    benign: u64,
    /// How long the replay took.
    seconds: f64,
    /// How long the recorded guest was busy; unknown if the recording has no proper end.
    recorded_busy_seconds: Option<f64>,
    /// Where and how it ended.
    end: String,
    /// How often the guest was moved.
    restores: u64,
}

/// Runs the recording again.
///
/// # Errors
/// If it cannot be read to its end, or the guest takes another course.
pub fn run(args: &ReplayArgs) -> Result<Exit, Failure> {
    sandbox::confine(args.sandbox.no_seccomp)?;
    let recording = Recording::open(&args.recording)?;
    let config = machine_of(recording.header(), &node::fingerprint()?)?;
    // What is compared is compared from the beginning.
    let target = args.to.filter(|_| !args.verify).map_or(Wanted::First, |to| Wanted::Before(Position(to)));
    let stored = Snapshots::open(&recording.snapshots_dir())?;
    let Restored { machine, segment } = snapshots::restore(recording.segments(), &stored, target, &config)?;
    let from = machine.position();

    let summary = Summary::read(&args.recording);
    let progress = Arc::new(Progress::default());
    let batches = Batches::new(recording, segment).up_to(args.to.map_or(Position(u64::MAX), Position));
    let replay = Replay::new(batches, Console { shown: !args.json }, args.verify, progress.clone());
    let replay = replay.past_stops();
    let started = Instant::now();
    let distances = Distances::of(args);
    let mut course = Course { follower: Follower::new(machine, replay), config, distances, restores: 0 };
    let reached = course.run(args.to.map(Position));
    let seconds = started.elapsed();

    let mut verdict = Verdict {
        from: from.0,
        positions: course.follower.machine().position().0,
        checkpoints: progress.checkpoints(),
        deltas: progress.jumps(),
        mismatches: 0,
        benign: 0,
        digest: None,
        seconds: seconds.as_secs_f64(),
        recorded_busy_seconds: summary.map(|summary| summary.busy_seconds),
        end: String::new(),
        restores: course.restores,
    };
    match reached {
        Ok(reached) => {
            verdict.end = end(&reached);
            if args.to.is_some() {
                let machine = course.follower.machine();
                verdict.digest = Some(state_digest(machine.memory(), &machine.save()?));
            }
            print_result(args.json, &verdict, || table(&verdict, seconds))?;
            Ok(Exit::Done)
        }
        Err(Stopped::Failure(failure)) => Err(failure),
        Err(Stopped::Follow(error)) => {
            let diverged = error.is_divergence();
            if diverged {
                verdict.mismatches = 1;
                verdict.end = error.to_string();
                print_result(args.json, &verdict, || table(&verdict, seconds))?;
            }
            Err(failure(error, diverged))
        }
    }
}

/// The machine on its way.
struct Course {
    follower: Follower<KvmCpu, Batches, Console>,
    config: MachineConfig,
    distances: Distances,
    restores: u64,
}

/// How far the guest goes from one virtual machine to the next.
enum Distances {
    /// It stays in one.
    Endless,
    /// Always so many positions.
    Equal(u64),
    /// Any number from one up to this.
    Random(Rng, u64),
}

impl Distances {
    fn of(args: &ReplayArgs) -> Distances {
        match (args.restore_every, args.restore_seed) {
            (None, _) => Distances::Endless,
            (Some(every), None) => Distances::Equal(every),
            (Some(every), Some(seed)) => {
                Distances::Random(Rng::with_seed(seed), every.saturating_mul(2).saturating_sub(1))
            }
        }
    }

    fn next(&mut self) -> Option<u64> {
        match self {
            Distances::Endless => None,
            Distances::Equal(every) => Some(*every),
            Distances::Random(random, most) => Some(random.u64(1..=*most)),
        }
    }
}

/// Why the way ended early.
enum Stopped {
    Follow(FollowError<ReadError>),
    Failure(Failure),
}

impl Course {
    fn run(&mut self, to: Option<Position>) -> Result<Reached, Stopped> {
        loop {
            let here = self.follower.machine().position();
            let next = self.distances.next().map(|distance| Position(here.0.saturating_add(distance)));
            let stop_at = next.into_iter().chain(to).min();
            match self.follower.run(stop_at).map_err(Stopped::Follow)? {
                Reached::Position if to.is_none_or(|to| self.follower.machine().position() < to) => {
                    self.restore().map_err(Stopped::Failure)?;
                }
                reached => return Ok(reached),
            }
        }
    }

    /// Moves the guest into a new virtual machine, by way of an image in bytes.
    fn restore(&mut self) -> Result<(), Failure> {
        let machine = self.follower.machine();
        let image = Image::capture(machine.memory(), machine.save()?);
        let image = Image::from_bytes(&image.to_bytes()?)?;
        let machine: Machine<KvmCpu> = image.restore(&self.config, KvmCpu::new)?;
        self.follower.replace_machine(machine);
        self.restores += 1;
        Ok(())
    }
}

fn end(reached: &Reached) -> String {
    match reached {
        Reached::Stopped => "the guest was stopped here".into(),
        Reached::Position => "the position asked for".into(),
        Reached::LogEnds => "the recording ends here without a stop".into(),
        Reached::PoweredOff(code) => format!("the guest powered itself off with code {code}"),
        Reached::Crashed(crash) => format!("the guest crashed: {crash}"),
    }
}

fn table(verdict: &Verdict, seconds: Duration) -> String {
    let rate = (verdict.positions - verdict.from) as f64 / seconds.as_secs_f64().max(1e-9);
    let busy = verdict
        .recorded_busy_seconds
        .map_or(String::new(), |busy| format!("; the recorded guest was busy for {busy:.2} s"));
    format!(
        "begun at     {}\npositions    {}\ncheckpoints  {} compared, {} different\ndeltas       {} taken over, not executed\ntime         {:.2} s ({rate:.0} positions/s){busy}\nend          {}",
        verdict.from,
        verdict.positions,
        verdict.checkpoints,
        verdict.mismatches,
        verdict.deltas,
        verdict.seconds,
        verdict.end,
    )
}

fn failure(error: FollowError<ReadError>, diverged: bool) -> Failure {
    if diverged {
        output::say("the replay took another course than the recording");
        return Failure::new("divergence", "replay with --to a position before it to see the state there")
            .because(error)
            .with_exit(Exit::Divergence);
    }
    if let FollowError::Run(RunError::World(ReplayError::History(ReadError::Gap(gap)))) = &error {
        let hint = format!(
            "what comes before is whole, replay it with --to {}; and so is what comes behind the first snapshot after position {}",
            gap.from, gap.to
        );
        return Failure::new("the replay cannot go on", hint).because(error);
    }
    Failure::new("the replay cannot go on", "what comes before is whole; replay it with --to")
        .because(error)
        .with_exit(Exit::Corrupt)
}
