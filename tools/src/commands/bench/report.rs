//! What the bench leaves: tables on stdout, and files.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
};

use super::{BenchArgs, page::page, placement::Placement, plots, results::Results, tables::tables};
use crate::{
    failure::{Exit, Failure},
    lab::{LabError, program},
    output,
};

/// What makes a PNG of an SVG.
const CONVERTER: &str = "rsvg-convert";

/// Prints the tables and writes the files that were asked for.
pub(super) fn publish(args: &BenchArgs, results: &Results, placement: &Placement) -> Result<(), Failure> {
    let tables = tables(results);
    let facts = facts(args, placement);
    if let Some(file) = &args.json {
        write(file, output::json(&results.rows())?.as_bytes())?;
    }
    if let Some(file) = &args.html {
        write(file, page(results, &tables, &facts).as_bytes())?;
    }
    if let Some(file) = &args.plot {
        let picture = plots::first(results);
        let content = if is_png(file) { png(&picture)? } else { picture.into_bytes() };
        write(file, &content)?;
    }
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    output::print(format_args!("{}\n{}", tables.join("\n"), facts.join("\n")))
}

/// Sees, before hours go by, whether the files that were asked for can be made.
///
/// # Errors
/// If a program is missing for that, or the name of a file says nothing.
pub(super) fn require_programs(args: &BenchArgs) -> Result<(), Failure> {
    let Some(file) = &args.plot else {
        return Ok(());
    };
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(()),
        Some("png") => Ok(program(CONVERTER).map(|_| ())?),
        _ => {
            let hint = "end its name with .svg or .png";
            Err(Failure::new(
                format!("the name of {} does not say which kind of picture it is to be", file.display()),
                hint,
            )
            .with_exit(Exit::Usage))
        }
    }
}

/// What must be known to read the figures.
fn facts(args: &BenchArgs, placement: &Placement) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor without a name", |(_, name)| name).to_owned();
    let kernel = read("/proc/sys/kernel/osrelease");
    let BenchArgs { rounds, seconds, arrivals, epoch, .. } = args;
    let quantum = args.quantum.unwrap_or(*epoch);
    vec![
        format!("Echovisor {}, {model}, Linux {}.", env!("CARGO_PKG_VERSION"), kernel.trim()),
        placement.to_string(),
        format!(
            "Rounds: {rounds}, in each of which all policies have their turn; {seconds} s for each load. Figures are medians, with the \
             least and the most in brackets; ratios are medians of each round's own ratio. Workload rate: {arrivals} requests/s. \
             Epoch of checkpoint: {epoch}; quantum of replay: {quantum}. Where a guest answers less than 1000 requests/s, the bench's own \
             client asks in redis-benchmark's place: it ends at its time, and counts what is unanswered then."
        ),
        "checkpoint and kemari are the policies of Micro-Checkpointing and Kemari on this machine, not those systems. Their pages travel \
         whole, as there; with -zstd, only what differs does, and that compressed."
            .to_owned(),
    ]
}

fn is_png(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "png")
}

/// The picture in pixels, two for one.
fn png(svg: &str) -> Result<Vec<u8>, Failure> {
    let mut command = Command::new(program(CONVERTER)?);
    command.args(["--format", "png", "--zoom", "2"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let convert = || -> io::Result<std::process::Output> {
        let mut child = command.spawn()?;
        // It reads everything before it writes anything.
        if let Some(mut input) = child.stdin.take() {
            input.write_all(svg.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = { convert }().map_err(|source| LabError::Start { program: CONVERTER.to_owned(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{CONVERTER} failed: {}", said.trim()), "write an .svg file instead"))
}

fn write(file: &Path, content: &[u8]) -> Result<(), Failure> {
    fs::write(file, content).map_err(|error| {
        let hint = "see whether its folder exists and can be written to";
        Failure::new(format!("cannot write {}", file.display()), hint).because(error)
    })
}
