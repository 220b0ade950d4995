//! The snapshots of a recording: where, when, and what each of them takes.

use std::{
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use echovisor_event::{Position, limits::PAGE_SIZE};
use echovisor_snapshot::store::{Share, Snapshots};
use indicatif::{DecimalBytes, HumanCount};
use serde::Serialize;

use super::{Found, Range};
use crate::failure::Failure;

/// A recording's snapshots. Scripts rely on the names.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    pub(super) snapshots: Vec<Row>,
    /// Bytes of all pages that are not zero, of all snapshots of the recording that can be counted.
    pub(super) content_bytes: u64,
    /// Bytes that the store takes for them.
    pub(super) stored_bytes: u64,
    /// How many times as much the first is as the second.
    pub(super) ratio: f64,
    pub(super) damaged: Vec<Found>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) position: Position,
    /// Seconds of UNIX time.
    pub(super) taken: u64,
    /// The segment of the log with which a replay goes on from here.
    pub(super) segment: u64,
    /// What it holds, unless that is damaged.
    #[serde(flatten)]
    pub(super) holds: Option<Holds>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Holds {
    /// Pages that are not zero.
    pub(super) pages: u64,
    /// Contents of pages that no earlier snapshot has.
    pub(super) new_pages: u64,
    /// Bytes that are stored for it alone.
    pub(super) own_bytes: u64,
}

impl Listing {
    /// Looks at all snapshots, and lists those in the range.
    pub(super) fn of(snapshots: &Snapshots, range: Range) -> Result<Listing, Failure> {
        let mut damaged: Vec<Found> =
            snapshots.damaged().iter().map(|damage| Found::new(damage, damage.hint())).collect();
        let (mut rows, mut content_bytes) = (Vec::new(), 0);
        for (manifest, share) in snapshots.list().iter().zip(snapshots.shares()?) {
            let share = share.map_err(|damage| damaged.push(Found::new(&damage, damage.hint()))).ok();
            let holds = share.map(|Share { pages, new_pages, own_bytes, .. }| {
                content_bytes += pages * PAGE_SIZE as u64;
                Holds { pages, new_pages, own_bytes }
            });
            let (position, taken, segment) = (manifest.position, manifest.taken, manifest.segment);
            rows.push(Row { position, taken, segment, holds });
        }
        rows.retain(|row| range.holds(row.position));
        let stored_bytes = snapshots.stored_bytes()?;
        let ratio = content_bytes as f64 / stored_bytes.max(1) as f64;
        Ok(Listing { snapshots: rows, content_bytes, stored_bytes, ratio, damaged })
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>14}  {:<20}  {:>8}  {:>11}  {:>11}  {:>11}",
            "position", "taken", "segment", "pages", "new pages", "own bytes"
        )?;
        for Row { position, taken, segment, holds } in &self.snapshots {
            let taken = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(*taken));
            write!(f, "{:>14}  {taken:<20}  {segment:>8}", HumanCount(position.0).to_string())?;
            match holds {
                Some(Holds { pages, new_pages, own_bytes }) => {
                    for count in [pages, new_pages, own_bytes] {
                        write!(f, "  {:>11}", HumanCount(*count).to_string())?;
                    }
                    writeln!(f)?;
                }
                None => writeln!(f, "  damaged")?,
            }
        }
        let (content, stored) = (DecimalBytes(self.content_bytes), DecimalBytes(self.stored_bytes));
        write!(f, "{content} of pages in {stored} on disk: {:.1} to 1", self.ratio)
    }
}
