//! Going on with a guest from the store that an earlier run of its primary has left.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use echovisor_event::{NodeId, VmId};
use echovisor_log::{
    arbiter::{
        Record,
        rules::{self, Kept, RuleError},
    },
    link::Fingerprint,
    store::{Segment, Store, StoreError, Writer},
};
use echovisor_machine::{Machine, MachineConfig, cpu::kvm::KvmCpu};
use echovisor_replayer::{FollowError, Follower, Progress, Reached, Replay, Unconfirmed};
use echovisor_snapshot::store::PageStore;

use super::history::{Batches, Gap, ReadError, machine_of};
use crate::{
    cli::{GuestArgs, NetArgs},
    failure::{Exit, Failure},
    snapshots::{self, Restored, Wanted},
};

/// What an earlier run has left.
pub struct Past {
    /// Its store, open for writing.
    pub store: Store,
    /// Its snapshots, open for writing.
    pub snapshots: PageStore,
    /// The machine that it ran.
    pub config: MachineConfig,
    writer: Option<Writer>,
    /// The guest was stopped on purpose.
    stopped: bool,
}

/// A guest that stands where its log ends.
pub struct Resumed {
    /// The guest, at a boundary.
    pub machine: Machine<KvmCpu>,
    /// What it has done that may not have left.
    pub unconfirmed: Unconfirmed,
    /// Positions that were replayed.
    pub replayed: u64,
    /// How long that took.
    pub time: Duration,
}

impl Past {
    /// Opens the store in `folder`; `None` if there is none, or none whose guest can have run.
    ///
    /// # Errors
    /// If it cannot be continued here.
    pub fn open(folder: &Path, here: &Fingerprint) -> Result<Option<Past>, Failure> {
        let store = match Store::open(folder) {
            Err(StoreError::NoRecording { .. }) => return Ok(None),
            opened => opened?,
        };
        let config = machine_of(store.header(), here)?;
        let snapshots = PageStore::open(&store.snapshots_dir())?;
        let kept = snapshots.snapshots();
        if store.segments().is_empty() && kept.list().is_empty() && kept.damaged().is_empty() {
            // The first snapshot is on disk before the log begins, and that before the guest runs: this is how far a start came.
            store.take_back()?;
            return Ok(None);
        }
        let (writer, stopped) = (store.writer()?, store.ends_on_purpose()?);
        Ok(Some(Past { store, snapshots, config, writer, stopped }))
    }

    /// The guest's identity.
    #[must_use]
    pub fn vm(&self) -> VmId {
        self.store.header().vm
    }

    /// The node that ran it, as the arbiter knows it.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.writer.map(|writer| writer.node)
    }

    /// How much of the guest's history is here.
    #[must_use]
    pub fn kept(&self, accept_rollback: bool) -> Kept {
        if self.stopped || self.writer.is_some_and(|writer| writer.durable) {
            Kept::Whole
        } else if accept_rollback {
            Kept::RollbackAccepted
        } else {
            Kept::Partly
        }
    }

    /// Whether the guest may go on without asking an arbiter.
    ///
    /// # Errors
    /// If there was one, or if what clients have seen may be missing.
    pub fn may_go_on_alone(&self, accept_rollback: bool) -> Result<(), Failure> {
        if self.writer.is_some_and(|writer| writer.arbitrated) {
            let what = "an arbiter decides who may go on with this guest, and none is named";
            return Err(Failure::new(what, "add --arbiter file:PATH, as when the guest was started"));
        }
        match self.kept(accept_rollback) {
            Kept::Partly => Err(RuleError::MayRollBack { vm: self.vm() }.into()),
            Kept::Whole | Kept::RollbackAccepted => Ok(()),
        }
    }

    /// The arbiter's record by which node `me` may go on, if the arbiter has this one.
    ///
    /// # Errors
    /// If it may not.
    pub fn record(
        &self,
        present: Option<&Record>,
        me: NodeId,
        accept_rollback: bool,
    ) -> Result<Record, RuleError> {
        let known = self.store.term().unwrap_or_default();
        rules::restart(present, self.vm(), me, known, self.kept(accept_rollback))
    }

    /// Refuses a command line that asks for another guest than the one that is here. What it leaves out is not compared.
    ///
    /// # Errors
    /// With what differs.
    pub fn must_fit(&self, guest: &GuestArgs, net: &NetArgs) -> Result<(), Failure> {
        let Some(ours) = guest.contradiction(&self.config).or_else(|| net.contradiction(&self.config)) else {
            return Ok(());
        };
        let hint = "give the options of its first start, or leave out what it is; another guest needs another folder";
        let what = format!("the guest in the store was started with {ours}");
        Err(Failure::new(what, hint).with_exit(Exit::Usage))
    }

    /// Replays what the log holds behind the last snapshot.
    ///
    /// # Errors
    /// If the guest ended by itself, or if its history cannot be replayed to its end.
    pub fn resume(&self) -> Result<Resumed, Failure> {
        let begun = Instant::now();
        let (segments, snapshots) = (self.store.segments(), self.snapshots.snapshots());
        let Restored { machine, segment } =
            snapshots::restore(segments, snapshots, Wanted::Last, &self.config)?;
        must_reach_the_end(segments, segment)?;
        let from = machine.position();
        let batches = Batches::new(&self.store, segment);
        let replay = Replay::new(batches, Unconfirmed::default(), true, Arc::new(Progress::default()));
        let mut follower = Follower::new(machine, replay.past_stops()).in_lockstep();
        match follower.run(None).map_err(lost)? {
            Reached::Stopped | Reached::LogEnds | Reached::Position => {}
            Reached::PoweredOff(code) => return Err(over(&format!("powered itself off with code {code}"))),
            Reached::Crashed(crash) => return Err(over(&format!("crashed: {crash}"))),
        }
        let (machine, unconfirmed, _) = follower.into_parts();
        let replayed = machine.position().0 - from.0;
        Ok(Resumed { machine, unconfirmed, replayed, time: begun.elapsed() })
    }
}

/// A guest goes on only where its log ends, and a snapshot before a gap does not lead there: what it did last is known to nobody then.
fn must_reach_the_end(segments: &[Segment], from: u64) -> Result<(), Failure> {
    let behind = segments.iter().filter(|segment| segment.start.segment >= from);
    let gap = behind.clone().zip(behind.skip(1)).find_map(|(previous, next)| Gap::between(previous, next));
    let Some(gap) = gap else { return Ok(()) };
    let what = format!(
        "the store has no whole snapshot behind position {}, where the guest came to this node last",
        gap.to
    );
    let hint = format!(
        "go on from the store of a node that ran it before, which lacks what it did here; `replay --to {}` shows what was before",
        gap.from
    );
    Err(Failure::new(what, hint).because(gap))
}

fn over(how: &str) -> Failure {
    let hint = "its history is over, and `replay` shows it; to begin anew, give another folder";
    Failure::new(format!("the guest in the store {how}"), hint)
}

fn lost(error: FollowError<ReadError>) -> Failure {
    let exit = if error.is_divergence() { Exit::Divergence } else { Exit::Corrupt };
    let hint = "`inspect` and `replay` show what is whole; nothing was changed";
    Failure::new("the guest cannot go on from its store", hint).because(error).with_exit(exit)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use echovisor_event::{Digest, Position, Term};
    use echovisor_log::SegmentStart;

    use super::*;

    fn segment(number: u64, batches: Range<u64>, positions: Range<u64>) -> Segment {
        let start = SegmentStart {
            segment: number,
            term: Term(number),
            sequence: batches.start,
            position: Position(positions.start),
            chain: Digest::default(),
        };
        Segment {
            start,
            last: Position(positions.end),
            next_sequence: batches.end,
            chain: Digest::default(),
            checkpoints: 0,
            bytes: 0,
            sealed: true,
        }
    }

    #[test]
    fn nobody_goes_on_from_before_a_gap() {
        let segments = [segment(0, 0..5, 0..100), segment(1, 5..9, 100..200), segment(2, 10..12, 150..300)];
        assert!(must_reach_the_end(&segments, 2).is_ok());
        assert!(must_reach_the_end(&segments[..2], 0).is_ok());
        for before in [0, 1] {
            let refused = must_reach_the_end(&segments, before).expect_err("a gap").to_string();
            assert!(refused.contains("no whole snapshot behind position 150"), "{refused}");
            assert!(refused.contains("replay --to 200"), "{refused}");
        }
    }
}
