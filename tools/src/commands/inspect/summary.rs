//! A recording in numbers.

use std::{collections::BTreeMap, fmt};

use echovisor_event::{Digest, Position, Term, VmId};
use echovisor_log::store::{Damage, Recording};
use indicatif::{DecimalBytes, HumanCount};
use serde::Serialize;

use super::{Range, Visit, read, row::measure};
use crate::failure::Failure;

/// What a recording, or a range of it, holds.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) vm: VmId,
    pub(super) guest: Digest,
    pub(super) term: Option<Term>,
    pub(super) first: Option<Position>,
    pub(super) last: Option<Position>,
    pub(super) segments: usize,
    pub(super) checkpoints: usize,
    pub(super) batches: u64,
    /// Bytes of the batches as they are stored and as they travelled.
    pub(super) stored_bytes: u64,
    /// Bytes of what the records hold.
    pub(super) content_bytes: u64,
    pub(super) kinds: BTreeMap<&'static str, Count>,
    pub(super) damaged: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Summary {
    /// Reads a range and counts it; gives the damage too.
    pub(super) fn of(recording: &Recording, range: Range) -> Result<(Summary, Vec<Damage>), Failure> {
        let header = recording.header();
        let segments = recording.segments().iter();
        let in_range = segments.filter(|segment| range.meets(segment.start.position, segment.last));
        let mut summary = Summary {
            vm: header.vm,
            guest: header.guest,
            term: recording.term(),
            first: None,
            last: None,
            segments: in_range.count(),
            checkpoints: recording
                .checkpoints()
                .iter()
                .filter(|checkpoint| range.holds(checkpoint.position))
                .count(),
            batches: 0,
            stored_bytes: 0,
            content_bytes: 0,
            kinds: BTreeMap::new(),
            damaged: Vec::new(),
        };
        let damaged = read(recording, range, |visit| {
            match visit {
                Visit::Batch(head, bytes) => {
                    summary.first.get_or_insert(head.from.max(range.from));
                    summary.last = Some(head.mark.watermark.min(range.to));
                    summary.batches += 1;
                    summary.stored_bytes += bytes as u64;
                }
                Visit::Record(record) => {
                    let (kind, bytes) = measure(&record.what);
                    let count = summary.kinds.entry(kind).or_default();
                    count.records += 1;
                    count.bytes += bytes;
                    summary.content_bytes += bytes;
                }
            }
            Ok(true)
        })?;
        summary.damaged = damaged.iter().map(ToString::to_string).collect();
        Ok((summary, damaged))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position =
            |position: Option<Position>| position.map_or("none".to_owned(), |p| HumanCount(p.0).to_string());
        writeln!(f, "virtual machine {}, term {}", self.vm, self.term.unwrap_or_default())?;
        writeln!(f, "positions       {} to {}", position(self.first), position(self.last))?;
        writeln!(f, "segments        {}, with {} checkpoints", self.segments, self.checkpoints)?;
        let content = DecimalBytes(self.content_bytes);
        writeln!(f, "stored          {} for {content} of content", DecimalBytes(self.stored_bytes))?;
        write!(f, "{:<12}{:>14}{:>18}", "kind", "records", "bytes")?;
        for (kind, Count { records, bytes }) in &self.kinds {
            let (records, bytes) = (HumanCount(*records).to_string(), HumanCount(*bytes).to_string());
            write!(f, "\n{kind:<12}{records:>14}{bytes:>18}")?;
        }
        Ok(())
    }
}
