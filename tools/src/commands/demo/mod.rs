//! `echovisor demo`: the product in ten seconds. Two nodes as separate processes, a client, kill -9 of the primary in the
//! middle of the load, and the verdict. It needs nothing but `/dev/kvm`.

mod client;
mod course;
mod story;
mod teller;
mod verdict;

use std::{env, path::Path};

use clap::{Args, value_parser};
pub use verdict::Verdict;

use crate::{
    cli::{block_on, print_result},
    commands::check_host,
    failure::{Exit, Failure},
    interruption::unless_interrupted,
};

/// The arguments of `echovisor demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// TCP connections of the client
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(1..=64))]
    pub connections: u16,

    /// End the load after this many requests
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pub requests: Option<u64>,

    /// End the load after this time; 5, if --requests is not given
    #[arg(long, value_name = "S", value_parser = value_parser!(u32).range(1..=3600))]
    pub seconds: Option<u32>,

    /// Repeat a run: the same requests, and the kill at the same share of the load
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,

    /// Print the verdict as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Shows that the guest survives its host, with this very program as the nodes.
///
/// # Errors
/// If it does not, or if the demo can't be set up.
pub fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    check_host::require_kvm()?;
    let program = env::current_exe().map_err(|error| {
        Failure::new(
            "cannot find the program itself, to start the nodes with",
            "see whether /proc is mounted",
        )
        .because(error)
    })?;
    let verdict = play(args, &program, &env::temp_dir())?;
    print_result(args.json, &verdict, || verdict.to_string())?;
    if verdict.ok {
        return Ok(Exit::Done);
    }
    Err(Failure::new(
        "the guest did not survive the loss of its primary unharmed",
        format!("repeat it with --seed {}; please report it, with what stands above", verdict.seed),
    ))
}

/// Plays the demo with `program` as the nodes and its files below `temporary`, and judges. However it ends, and if it is interrupted, no process and no
/// file is left.
///
/// # Errors
/// If the demo can't be set up, or can't go on.
pub fn play(args: &DemoArgs, program: &Path, temporary: &Path) -> Result<Verdict, Failure> {
    block_on(unless_interrupted("demo", story::perform(args, program, temporary)))
}
