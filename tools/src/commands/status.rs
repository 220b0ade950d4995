//! `echovisor status`: how a node is.

use std::{fmt::Write, path::PathBuf, time::Duration};

use clap::Args;
use indicatif::{DecimalBytes, HumanCount};
use serde_json::Value;

use crate::{
    cli::{block_on, print_result},
    control::{self, Role, Snapshots, Status},
    failure::{Exit, Failure},
};

/// Which node is meant.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct ControlArgs {
    /// The socket that the node was given with its own --control
    #[arg(long = "control", value_name = "SOCKET")]
    pub socket: PathBuf,
}

/// The arguments of `echovisor status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The node.
    #[command(flatten)]
    pub control: ControlArgs,

    /// Print the status as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Asks the node, and prints what it says.
///
/// # Errors
/// If the node can't be reached.
pub fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let status = block_on(async { Ok(control::status(&args.control.socket).await?) })?;
    print_result(args.json, &status, || table(&status))?;
    Ok(Exit::Done)
}

/// The status as a person reads it: what matters most comes first, and what this program does not know of comes last, as
/// the node wrote it.
fn table(status: &Status) -> String {
    let count = |n: u64| HumanCount(n).to_string();
    let bytes = |n: u64| format!("{} ({n})", DecimalBytes(n));
    let mut rows = vec![
        ("role", format!("{}, term {}", status.role, status.term)),
        ("protected", if status.protected { "yes" } else { "no" }.to_owned()),
        ("position", count(status.position)),
        ("watermark", count(status.watermark)),
        ("acknowledged", count(status.acknowledged)),
        ("lag", format!("{:.1} ms", status.lag_ms)),
        ("last checkpoint", status.last_checkpoint.map_or("none yet".to_owned(), count)),
        ("divergences", count(status.divergences)),
        ("guest received", bytes(status.guest_rx_bytes)),
        ("guest sent", bytes(status.guest_tx_bytes)),
        ("log", bytes(status.log_bytes)),
        ("link", bytes(status.link_bytes)),
    ];
    if let Some(takeover) = status.takeover_ms {
        rows.push(("takeover", format!("{takeover:.1} ms")));
    }
    if let Some(Snapshots { count: kept, bytes: stored, position, age_s, segment, ended, unfreed }) =
        &status.snapshots
    {
        rows.push(("snapshots", format!("{kept}, {}", bytes(*stored))));
        if let (Some(position), Some(age), Some(segment)) = (position, age_s, segment) {
            let age = humantime::format_duration(Duration::from_secs(*age));
            rows.push(("last snapshot", format!("{}, {age} ago, segment {segment}", count(*position))));
        }
        rows.extend(ended.iter().map(|why| ("no more snapshots", why.clone())));
        rows.extend(unfreed.iter().map(|why| ("no space freed", why.clone())));
    }
    let rows = rows.into_iter().map(|(name, value)| (name.to_owned(), value));
    let more = status.more.iter().map(|(name, value)| {
        let value = if let Value::String(text) = value { text.clone() } else { value.to_string() };
        (name.replace('_', " "), value)
    });
    rows.chain(more).fold(String::new(), |mut text, (name, value)| {
        let line_end = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{line_end}{name:<18}{value}");
        text
    })
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Secondary => "secondary",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_a_table() {
        let mut status = Status::new(Role::Primary);
        status.position = 1_234_567;
        status.protected = true;
        status.takeover_ms = Some(14.25);
        status.more.insert("replay_ms".to_owned(), Value::from(3));
        let table = table(&status);
        assert!(table.starts_with("role              primary, term 0\nprotected         yes\n"), "{table}");
        assert!(table.contains("\nposition          1,234,567\n"), "{table}");
        assert!(table.ends_with("\ntakeover          14.2 ms\nreplay ms         3"), "{table}");
    }

    #[test]
    fn snapshots_that_are_taken_no_more_are_seen() {
        let mut status = Status::new(Role::Primary);
        let mut snapshots = Snapshots { count: 3, bytes: 1_500_000, ..Snapshots::default() };
        (snapshots.position, snapshots.age_s, snapshots.segment) = (Some(12_345), Some(75), Some(4));
        status.snapshots = Some(snapshots.clone());
        let said = table(&status);
        assert!(said.contains("\nsnapshots         3, 1.50 MB (1500000)\n"), "{said}");
        assert!(said.ends_with("\nlast snapshot     12,345, 1m 15s ago, segment 4"), "{said}");
        snapshots.ended = Some("no space is left for 00000001.pack".to_owned());
        status.snapshots = Some(snapshots);
        let said = table(&status);
        assert!(said.ends_with("\nno more snapshots no space is left for 00000001.pack"), "{said}");
        let json = serde_json::to_value(&status).expect("JSON");
        assert_eq!(
            (&json["snapshots"]["count"], &json["snapshots"]["position"]),
            (&3.into(), &12_345.into())
        );
        assert_eq!(serde_json::from_value::<Status>(json).expect("the same"), status);
    }
}
