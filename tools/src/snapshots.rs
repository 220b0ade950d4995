//! The snapshots in a recording's folder.

use std::{
    cmp::Reverse,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use echovisor_event::{Position, Term};
use echovisor_log::{SegmentStart, store::Segment};
use echovisor_machine::{Machine, MachineConfig, cpu::kvm::KvmCpu};
use echovisor_snapshot::{
    PageDigests, RestoreError,
    store::{Manifest, PageStore, SnapshotParts, Snapshots, StoreError},
};

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Makes the folder's store, with the state in which the log begins.
///
/// # Errors
/// If the disk does not take it.
pub(crate) fn begin(folder: &Path, machine: &Machine<KvmCpu>) -> Result<PageStore, Failure> {
    let mut store = PageStore::open(folder)?;
    let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (state, digests) = (machine.save()?, PageDigests::of(machine.memory()));
    let parts = SnapshotParts {
        state: &state,
        digests: &digests,
        taken,
        segment: SegmentStart::first(Term(1)).segment,
    };
    store.write(&parts, machine.memory())?;
    Ok(store)
}

/// A machine as it was in a recording, and where its history goes on.
pub(crate) struct Restored {
    pub(crate) machine: Machine<KvmCpu>,
    /// The log's segment that begins at the machine's position.
    pub(crate) segment: u64,
}

/// Which snapshot a guest begins at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// The first one and no other; it stands where the log begins, unless that was at a takeover.
    First,
    /// The newest at or before this position.
    Before(Position),
    /// The one that was taken last.
    Last,
}

/// The machine of the wanted snapshot, or of one before it if it cannot be loaded, where the log goes on behind it.
///
/// # Errors
/// If there is none, or the host gives no machine.
pub(crate) fn restore(
    segments: &[Segment],
    snapshots: &Snapshots,
    wanted: Wanted,
    config: &MachineConfig,
) -> Result<Restored, Failure> {
    for damage in snapshots.damaged() {
        output::say(format_args!("a snapshot cannot be used: {damage}"));
    }
    let mut damaged = None;
    for manifest in candidates(segments, snapshots.list(), wanted) {
        match snapshots.restore(manifest.position, config, KvmCpu::new) {
            Ok(machine) => return Ok(Restored { machine, segment: manifest.segment }),
            Err(RestoreError::Store(StoreError::Damage(damage))) => {
                output::say(format_args!("a snapshot is damaged, so an earlier one is taken: {damage}"));
                damaged = Some(damage);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(match damaged {
        Some(damage) => StoreError::Damage(damage).into(),
        None => nothing(snapshots, wanted),
    })
}

/// The snapshots behind which the log goes on, in the order in which they are tried.
fn candidates<'a>(segments: &[Segment], all: &'a [Manifest], wanted: Wanted) -> Vec<&'a Manifest> {
    let begins = |manifest: &Manifest| {
        let here =
            |start: &SegmentStart| (start.segment, start.position) == (manifest.segment, manifest.position);
        // A guest that never ran has a snapshot and no log.
        (segments.is_empty() && manifest.position == Position::BOOT)
            || segments.iter().any(|segment| here(&segment.start))
    };
    let mut all: Vec<&Manifest> = all.iter().filter(|manifest| begins(manifest)).collect();
    match wanted {
        Wanted::First => {
            let at_boot = segments.first().is_none_or(|segment| segment.start.position == Position::BOOT);
            all.retain(|manifest| !at_boot || manifest.position == Position::BOOT);
            all.sort_by_key(|manifest| manifest.order());
            all.truncate(1);
        }
        Wanted::Before(position) => {
            all.retain(|manifest| manifest.position <= position);
            all.reverse();
        }
        Wanted::Last => all.sort_by_key(|manifest| Reverse(manifest.order())),
    }
    all
}

fn nothing(snapshots: &Snapshots, wanted: Wanted) -> Failure {
    let Wanted::Before(position) = wanted else {
        let hint = "after a takeover one is taken at once, but that was broken off; a node that ran the guest before may have more";
        return Failure::new("the recording has no snapshot to begin with", hint).with_exit(Exit::Corrupt);
    };
    let what = format!("the recording has no snapshot at or before position {position}");
    match snapshots.list().first() {
        Some(first) => {
            Failure::new(what, format!("it begins at position {}: ask for a later one", first.position))
        }
        None => Failure::new(what, "the recording is incomplete; make it anew").with_exit(Exit::Corrupt),
    }
}

#[cfg(test)]
mod tests {
    use echovisor_event::Digest;

    use super::*;

    fn segment(segment: u64, position: u64) -> Segment {
        let start = SegmentStart { segment, position: Position(position), ..SegmentStart::first(Term(1)) };
        let (last, chain) = (start.position, start.chain);
        Segment { start, last, next_sequence: 0, chain, checkpoints: 0, bytes: 0, sealed: true }
    }

    fn manifest(position: u64, segment: u64) -> Manifest {
        let nothing = Digest::default();
        let (digest, root, state) = (nothing, nothing, nothing);
        Manifest { position: Position(position), digest, root, state, memory: 0, taken: 0, segment }
    }

    /// Behind the gap, which is before segment 3, the guest came back to an earlier position.
    #[test]
    fn the_last_snapshot_is_not_the_one_of_the_last_position() {
        let segments = [segment(0, 0), segment(1, 100), segment(2, 190), segment(3, 150), segment(4, 160)];
        let manifests =
            [manifest(0, 0), manifest(100, 1), manifest(160, 4), manifest(170, 9), manifest(190, 2)];
        let wanted = |segments: &[Segment], wanted| -> Vec<u64> {
            candidates(segments, &manifests, wanted).iter().map(|manifest| manifest.position.0).collect()
        };
        assert_eq!(wanted(&segments, Wanted::Last), [160, 190, 100, 0]);
        assert_eq!(wanted(&segments, Wanted::Before(Position(170))), [160, 100, 0]);
        assert_eq!(wanted(&segments, Wanted::First), [0]);
        assert_eq!(wanted(&segments[3..], Wanted::First), [160], "it began at a takeover");
        assert_eq!(wanted(&[], Wanted::Last), [0], "it never ran");
    }
}
