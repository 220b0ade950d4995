//! Whether a recording is whole: every byte of its log and its snapshots is read. What is not is named, and what can be
//! replayed all the same.

use std::{fmt, path::Path};

use echovisor_event::Position;
use echovisor_log::{
    Batch,
    store::{Recording, Segment, StoreError},
};
use echovisor_snapshot::store::{self as snapshot, Manifest, Snapshots};
use indicatif::{DecimalBytes, HumanCount};
use serde::Serialize;

use super::Found;
use crate::failure::Failure;

/// What was read of a recording, and found. Scripts rely on the names.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) segments: usize,
    pub(super) batches: u64,
    /// Bytes of the batches, as they are stored.
    pub(super) log_bytes: u64,
    /// Snapshots that can be loaded.
    pub(super) snapshots: Vec<Position>,
    /// Bytes of what they are made of, as it is stored.
    pub(super) snapshot_bytes: u64,
    pub(super) damaged: Vec<Found>,
    /// From where to where the recording can be replayed.
    pub(super) replayable: Vec<Stretch>,
}

/// Positions that can be replayed, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Stretch {
    /// That of the snapshot with which a replay begins.
    pub(super) from: Position,
    pub(super) to: Position,
}

/// A segment as it was read.
struct Read {
    segment: Segment,
    /// The last watermark that can be read; `None` if nothing can.
    intact_to: Option<Position>,
    /// Nothing of it is damaged.
    whole: bool,
}

impl Verdict {
    /// Reads everything.
    pub(super) fn of(recording: &Recording) -> Result<Verdict, Failure> {
        let mut verdict = Verdict {
            segments: recording.segments().len(),
            batches: 0,
            log_bytes: 0,
            snapshots: Vec::new(),
            snapshot_bytes: 0,
            damaged: Vec::new(),
            replayable: Vec::new(),
        };
        if let Err(error) = recording.writer() {
            verdict.add(&error, error.hint());
        }
        let segments = verdict.read_log(recording)?;
        let snapshots = verdict.read_snapshots(&recording.snapshots_dir())?;
        verdict.replayable = stretches(&segments, &snapshots);
        Ok(verdict)
    }

    /// Reads all batches.
    fn read_log(&mut self, recording: &Recording) -> Result<Vec<Read>, Failure> {
        let mut segments = Vec::new();
        let mut batch = Batch::new();
        for listed in recording.segments() {
            let start = listed.start;
            let mut read = Read { segment: *listed, intact_to: None, whole: false };
            match recording.read(start.segment) {
                Ok(mut reader) => {
                    read.intact_to = Some(start.position);
                    read.whole = loop {
                        match reader.next(&mut batch) {
                            Ok(Some(head)) => {
                                read.intact_to = Some(head.mark.watermark);
                                self.batches += 1;
                                self.log_bytes += reader.body().len() as u64;
                            }
                            Ok(None) => break true,
                            Err(damage) => {
                                self.add(&damage, damage.hint());
                                break false;
                            }
                        }
                    };
                }
                Err(StoreError::Damage(damage)) => self.add(&damage, damage.hint()),
                Err(error) => return Err(error.into()),
            }
            segments.push(read);
        }
        // Those of which so little is left that they are not listed.
        for damage in recording.damaged() {
            if !segments.iter().any(|read| read.segment.start.segment == damage.segment) {
                self.add(damage, damage.hint());
            }
        }
        Ok(segments)
    }

    /// Reads all snapshots, and what there is beside them. The positions of those that are whole are kept.
    fn read_snapshots(&mut self, dir: &Path) -> Result<Vec<Manifest>, Failure> {
        let snapshots = match Snapshots::open(dir) {
            Ok(snapshots) => snapshots,
            Err(error @ snapshot::StoreError::NoStore { .. }) => {
                self.add(&error, error.hint());
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let damaged = snapshots.verify()?;
        let is_whole =
            |manifest: &&Manifest| !damaged.iter().any(|found| found.snapshots.contains(&manifest.position));
        let whole: Vec<Manifest> = snapshots.list().iter().filter(is_whole).copied().collect();
        self.snapshots = whole.iter().map(|manifest| manifest.position).collect();
        self.snapshot_bytes = snapshots.stored_bytes()?;
        damaged.iter().for_each(|found| self.add(found, found.hint()));
        Ok(whole)
    }

    fn add(&mut self, what: &impl fmt::Display, hint: Option<&str>) {
        self.damaged.push(Found::new(what, hint));
    }
}

/// What can be replayed: from each snapshot that is whole and begins a segment of the log, as far as that and those behind it are
/// whole. A guest that never ran has a snapshot and no log.
fn stretches(log: &[Read], snapshots: &[Manifest]) -> Vec<Stretch> {
    if log.is_empty() {
        let alone = |manifest: &Manifest| Stretch { from: manifest.position, to: manifest.position };
        return snapshots.iter().map(alone).collect();
    }
    let mut stretches: Vec<Stretch> = Vec::new();
    // The segment to whose end the last stretch has come.
    let mut present: Option<&Segment> = None;
    for Read { segment, intact_to, whole } in log {
        let goes_on = present.take().is_some_and(|present| segment.follows(present));
        let Some(to) = *intact_to else { continue };
        let start = &segment.start;
        let begins =
            |manifest: &Manifest| (manifest.segment, manifest.position) == (start.segment, start.position);
        match stretches.last_mut().filter(|_| goes_on) {
            Some(stretch) => stretch.to = to,
            None if snapshots.iter().any(begins) => stretches.push(Stretch { from: start.position, to }),
            None => continue,
        }
        present = Some(segment).filter(|_| *whole);
    }
    stretches
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: u64| HumanCount(n).to_string();
        let (log, kept) = (DecimalBytes(self.log_bytes), DecimalBytes(self.snapshot_bytes));
        writeln!(f, "log             {} segments, {} batches, {log}", self.segments, count(self.batches))?;
        writeln!(f, "snapshots       {}, {kept}", self.snapshots.len())?;
        match self.damaged.len() {
            0 => writeln!(f, "damaged         nothing")?,
            damaged => writeln!(f, "damaged         {damaged}, named below")?,
        }
        f.write_str("replayable      ")?;
        if self.replayable.is_empty() {
            return f.write_str("nothing");
        }
        for (index, Stretch { from, to }) in self.replayable.iter().enumerate() {
            let separator = if index == 0 { "positions" } else { "," };
            write!(f, "{separator} {} to {}", count(from.0), count(to.0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use echovisor_event::{Digest, Term};
    use echovisor_log::SegmentStart;

    use super::*;

    fn segment(number: u64, from: u64, to: Option<u64>, whole: bool) -> Read {
        let (position, sequence) = (Position(from), number);
        let start = SegmentStart { segment: number, position, sequence, ..SegmentStart::first(Term(1)) };
        let segment = Segment {
            start,
            last: Position(number * 10),
            next_sequence: number + 1,
            chain: start.chain,
            checkpoints: 0,
            bytes: 0,
            sealed: true,
        };
        Read { segment, intact_to: to.map(Position), whole }
    }

    fn snapshot(segment: u64, position: u64) -> Manifest {
        let digest = Digest([0; 32]);
        let (root, state, position) = (digest, digest, Position(position));
        Manifest { position, digest, root, state, memory: 1 << 20, taken: 0, segment }
    }

    fn replayable(log: &[Read], snapshots: &[Manifest]) -> Vec<(u64, u64)> {
        stretches(log, snapshots).iter().map(|stretch| (stretch.from.0, stretch.to.0)).collect()
    }

    #[test]
    fn a_replay_begins_at_a_snapshot_and_ends_at_damage_or_a_gap() {
        let snapshots = [snapshot(1, 0), snapshot(2, 10), snapshot(4, 30), snapshot(7, 70)];
        let whole = |number| segment(number, number * 10 - 10, Some(number * 10), true);
        assert_eq!(replayable(&[whole(1), whole(2), whole(3)], &snapshots), [(0, 30)]);
        // The third goes on behind the second, though no snapshot begins it.
        let cut = [whole(1), segment(2, 10, Some(14), false), whole(3), whole(4), whole(5)];
        assert_eq!(replayable(&cut, &snapshots), [(0, 14), (30, 50)]);
        assert_eq!(replayable(&[segment(1, 0, None, false), whole(2), whole(3)], &snapshots), [(10, 30)]);
        assert_eq!(replayable(&[whole(1), whole(2), whole(3)], &snapshots[1..]), [(10, 30)]);
        // Another node ran the guest in between.
        assert_eq!(replayable(&[whole(1), segment(7, 70, Some(75), true)], &snapshots), [(0, 10), (70, 75)]);
        assert_eq!(replayable(&[whole(3)], &snapshots), []);
        assert_eq!(replayable(&[], &snapshots[..1]), [(0, 0)]);
    }
}
