//! The snapshots in a recording's folder.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use echovisor_event::{Position, Term};
use echovisor_log::{SegmentStart, store::Segment};
use echovisor_machine::{Machine, MachineConfig, cpu::kvm::KvmCpu};
use echovisor_snapshot::{
    PageDigests, RestoreError,
    store::{PageStore, SnapshotParts, Snapshots, StoreError},
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

/// The machine of the newest snapshot at or before `position` that can be loaded, and behind which the log goes on.
///
/// # Errors
/// If there is none, or the host gives no machine.
pub(crate) fn restore(
    segments: &[Segment],
    snapshots: &Snapshots,
    position: Position,
    config: &MachineConfig,
) -> Result<Restored, Failure> {
    for damage in snapshots.damaged() {
        output::say(format_args!("a snapshot cannot be used: {damage}"));
    }
    let mut damaged = None;
    for manifest in snapshots.list().iter().rev().filter(|manifest| manifest.position <= position) {
        let begins =
            |start: &SegmentStart| (start.segment, start.position) == (manifest.segment, manifest.position);
        // A guest that never ran has a snapshot and no log.
        if !segments.is_empty() && !segments.iter().any(|segment| begins(&segment.start)) {
            continue;
        }
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
        None => Failure::new(
            format!("the recording has no snapshot at or before position {position}"),
            "the recording is incomplete; make it anew",
        )
        .with_exit(Exit::Corrupt),
    })
}
