//! All runs, in an order in which whatever else the host does hits all policies alike.

use std::{ffi::OsStr, fmt, fs, path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    BenchArgs,
    link::Link,
    load::Ground,
    meter::Reading,
    placement::Placement,
    policy::Policy,
    rerun::Rerun,
    results::Results,
    row::{Findings, Row},
    stage::{self, Props, Stage},
    workload::Workload,
    yardstick::Yardstick,
};
use crate::{failure::Failure, output};

/// Measures everything that was asked for. A run that fails is told of, and the others go on; the failure that comes back says how
/// many there were.
pub(super) async fn measure_all(
    args: &BenchArgs,
    program: &OsStr,
    folder: &Path,
    placement: &Placement,
) -> Result<(Results, Option<Failure>), Failure> {
    let (mut results, mut failed) = (Results::default(), Vec::new());
    let runs = runs(args);
    let bar = ProgressBar::new(runs.len() as u64);
    // The template is a constant; were it wrong, the bar would have its default look.
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len}, {eta} left; {msg}") {
        bar.set_style(style);
    }
    for (number, run) in runs.iter().enumerate() {
        bar.set_message(run.to_string());
        bar.tick();
        let folder = folder.join(number.to_string());
        let measured =
            run.measure(args, Props { program, folder: &folder, pace: args.pace(), placement }).await;
        // Recordings are large.
        let _ = fs::remove_dir_all(&folder);
        match measured {
            Ok(row) => results.push(row),
            Err(failure) => {
                bar.suspend(|| output::say(format_args!("{run}\n{failure}")));
                failed.push(run.to_string());
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let failure = failed.first().map(|first| {
        let what = format!("{} of {} runs failed, first that of {first}", failed.len(), runs.len());
        Failure::new(what, "why stands above; what the others measured is reported all the same")
    });
    Ok((results, failure))
}

/// One policy under one load.
struct Run {
    round: u32,
    policy: Policy,
    workload: Workload,
    link: Link,
}

/// In each round, and there under each load, the policies take turns.
fn runs(args: &BenchArgs) -> Vec<Run> {
    let mut runs = Vec::new();
    for round in 1..=args.rounds {
        for link in args.links() {
            for workload in args.workloads.iter().copied() {
                let run = |policy| Run { round, policy, workload, link: link.clone() };
                runs.extend(args.policies.iter().copied().map(run));
            }
        }
    }
    runs
}

impl Run {
    async fn measure(&self, args: &BenchArgs, props: Props<'_>) -> Result<Row, Failure> {
        let Run { round, policy, workload, link } = self;
        let mut stage = Stage::set(*policy, workload.guest(), link, props).await?;
        let played = self.play(args, &mut stage, props).await;
        if played.is_err() {
            stage.tell_last_words();
        }
        Ok(Row::new((*policy, *workload, link, *round), &played?))
    }

    async fn play(&self, args: &BenchArgs, stage: &mut Stage, props: Props<'_>) -> Result<Findings, Failure> {
        let mut load = self.workload.load();
        load.fill(&ground(args, stage))?;
        stage.slow_down()?;
        load.prepare(&ground(args, stage))?;
        stage.settle().await?;
        // What these find out is compared with that load under that policy.
        let is_lockstep = (self.policy, self.workload) == (Policy::Replay, Workload::Rate);
        let yardstick = is_lockstep
            .then(|| Yardstick::measure(&stage.network, props.placement, self.link.delay))
            .transpose()?;
        let before = Reading::take(stage).await?;
        let outcome = load.run(&ground(args, stage))?;
        stage.settle().await?;
        let after = Reading::take(stage).await?;
        let (spent, resident) = (after.since(before), stage.resident()?);
        let rerun = match (self.policy, self.workload) {
            (Policy::Recorded, Workload::Kv) => {
                stage.primary.stop().await?;
                Some(Rerun::of(&stage::recording(props.folder), props).await?)
            }
            _ => None,
        };
        Ok(Findings { outcome, spent, resident, yardstick, rerun })
    }
}

/// What the load has to stand on.
fn ground<'a>(args: &BenchArgs, stage: &'a Stage) -> Ground<'a> {
    Ground {
        client: &stage.network.client,
        time: Duration::from_secs(args.seconds.into()),
        arrivals: args.arrivals,
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { round, policy, workload, link } = self;
        write!(f, "`{}` under `{}`, round {round}, {link}", workload.name(), policy.name())
    }
}
