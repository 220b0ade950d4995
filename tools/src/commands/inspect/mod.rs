//! `echovisor inspect`: what a recording holds.

mod row;
mod snapshots;
mod summary;
#[cfg(test)]
mod tests;
mod verify;

use std::{fmt, path::PathBuf};

use clap::Args;
use echovisor_event::{Position, Stamped};
use echovisor_log::{
    Batch, Head, Record,
    store::{Damage, Recording, Segment, StoreError},
};
use echovisor_snapshot::store::Snapshots;
use row::{Pages, Row};
use serde::Serialize;
use snapshots::Listing;
use summary::Summary;
use verify::Verdict;

use crate::{
    cli::print_result,
    failure::{Exit, Failure},
    output::{self, Printer, json},
};

/// The arguments of `echovisor inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The recording
    #[arg(value_name = "DIR")]
    pub recording: PathBuf,

    /// Begin at this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub from: u64,

    /// End with this position
    #[arg(long, value_name = "POSITION", default_value_t = u64::MAX, hide_default_value = true)]
    pub to: u64,

    /// List every record instead of counting them
    #[arg(long)]
    pub events: bool,

    /// List the snapshots, and what each of them takes
    #[arg(long, conflicts_with = "events")]
    pub snapshots: bool,

    /// Read every byte of the log and of the snapshots; name what is damaged, and what can be replayed all the same
    #[arg(long, conflicts_with_all = ["events", "snapshots", "from", "to"])]
    pub verify: bool,

    /// Print one JSON object; with --events, one for each record
    #[arg(long)]
    pub json: bool,
}

/// Reads the recording, and prints what is asked for. What is intact is printed whatever else is damaged.
///
/// # Errors
/// If there is no recording, or if some of the range is damaged.
pub fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let range = Range { from: Position(args.from), to: Position(args.to) };
    if range.from > range.to {
        let hint = "give the smaller position to --from, or leave one of them out";
        return Err(Failure::new("--from lies behind --to", hint).with_exit(Exit::Usage));
    }
    let recording = Recording::open(&args.recording)?;
    if args.verify {
        let verdict = Verdict::of(&recording)?;
        print_result(args.json, &verdict, || verdict.to_string())?;
        return report(verdict.damaged);
    }
    if args.snapshots {
        let listing = Listing::of(&Snapshots::open(&recording.snapshots_dir())?, range)?;
        print_result(args.json, &listing, || listing.to_string())?;
        return report(listing.damaged);
    }
    let damaged = if args.events {
        let (mut printer, mut pages) = (Printer::new(), Pages::default());
        let damaged = read(&recording, range, |visit| match visit {
            Visit::Batch(..) => Ok(true),
            Visit::Record(record) => match Row::new(record, &mut pages) {
                None => Ok(true),
                Some(row) if args.json => printer.line(json(&row)?),
                Some(row) => printer.line(row),
            },
        })?;
        printer.finish()?;
        damaged
    } else {
        let (summary, damaged) = Summary::of(&recording, range)?;
        print_result(args.json, &summary, || summary.to_string())?;
        damaged
    };
    report(damaged.iter().map(|damage| Found::new(damage, damage.hint())).collect())
}

/// Something that is damaged.
#[derive(Debug, Serialize)]
struct Found {
    what: String,
    hint: String,
}

impl Found {
    fn new(what: &impl fmt::Display, hint: Option<&str>) -> Found {
        let hint = hint.unwrap_or("see whether the disk is well; a copy of this file may be whole");
        Found { what: what.to_string(), hint: hint.to_owned() }
    }
}

/// Names all damage, and ends with the last of it.
fn report(mut damaged: Vec<Found>) -> Result<Exit, Failure> {
    let Some(last) = damaged.pop() else {
        return Ok(Exit::Done);
    };
    for Found { what, .. } in &damaged {
        output::say(format_args!("damaged: {what}"));
    }
    Err(Failure::new(last.what, last.hint).with_exit(Exit::Corrupt))
}

#[derive(Clone, Copy, Debug)]
struct Range {
    from: Position,
    to: Position,
}

impl Range {
    fn holds(&self, position: Position) -> bool {
        (self.from..=self.to).contains(&position)
    }

    /// Whether anything between these two belongs to the range.
    fn meets(&self, first: Position, last: Position) -> bool {
        first <= self.to && self.from <= last
    }
}

/// What is met on the way through a recording.
enum Visit<'a> {
    /// A batch that has a part in the range, with the size of its body.
    Batch(&'a Head, usize),
    /// A record in the range.
    Record(Stamped<Record<'a>>),
}

/// Goes through a range, as long as `visit` wants to go on. A damaged segment is read as far as it is intact, and then the
/// next one. Gives the damage.
fn read(
    recording: &Recording,
    range: Range,
    mut visit: impl FnMut(Visit<'_>) -> Result<bool, Failure>,
) -> Result<Vec<Damage>, Failure> {
    let mut damaged = Vec::new();
    let mut batch = Batch::new();
    let in_range = |segment: &&Segment| range.meets(segment.start.position, segment.last);
    for segment in recording.segments().iter().filter(in_range) {
        let mut reader = match recording.read(segment.start.segment) {
            Ok(reader) => reader,
            Err(StoreError::Damage(damage)) => {
                damaged.push(*damage);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        loop {
            let head = match reader.next(&mut batch) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(damage) => {
                    damaged.push(*damage);
                    break;
                }
            };
            if !range.meets(head.from, head.mark.watermark) {
                continue;
            }
            let mut goes_on = visit(Visit::Batch(&head, reader.body().len()))?;
            for record in batch.records().filter(|record| range.holds(record.at)) {
                goes_on = goes_on && visit(Visit::Record(record))?;
            }
            if !goes_on {
                return Ok(damaged);
            }
        }
        if let Some(torn) = reader.torn() {
            output::say(format_args!(
                "the end of the last segment was being written when the recorder ended: {torn}"
            ));
        }
    }
    Ok(damaged)
}
