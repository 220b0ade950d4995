//! What the bench leaves: tables on stdout, and files.

use std::{fs, path::Path};

use super::{BenchArgs, placement::Placement, results::Results, tables::tables};
use crate::{failure::Failure, output};

/// Prints the tables and writes the files that were asked for.
pub(super) fn publish(args: &BenchArgs, results: &Results, placement: &Placement) -> Result<(), Failure> {
    if let Some(file) = &args.json {
        write(file, &output::json(&results.rows())?)?;
    }
    let tables: Vec<String> = tables(results).iter().map(ToString::to_string).collect();
    output::print(format_args!("{}\n{placement}", tables.join("\n")))
}

fn write(file: &Path, content: &str) -> Result<(), Failure> {
    fs::write(file, content).map_err(|error| {
        let hint = "see whether its folder exists and can be written to";
        Failure::new(format!("cannot write {}", file.display()), hint).because(error)
    })
}
