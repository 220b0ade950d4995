//! A node's folder for the guest's history, open and locked while the guest runs elsewhere: so that a takeover waits for no disk.

use std::{cmp::Reverse, path::Path, sync::Arc};

use echovisor_event::{NodeId, Position, Term, VmId};
use echovisor_log::{
    SegmentStart,
    link::Fingerprint,
    store::{Header, Reserved, Store, Writer},
};
use echovisor_machine::Memory;
use echovisor_recorder::{Archive, Keeper, gate::Gate};
use echovisor_replayer::secondary::Base;
use echovisor_snapshot::{
    RestoreError,
    store::{Manifest, PageStore},
};

use super::Past;
use crate::{
    cli::{Ack, StoreArgs},
    failure::Failure,
};

/// A folder for the guest's history.
pub struct Shelf {
    log: Log,
    snapshots: PageStore,
}

enum Log {
    /// There is none yet.
    Empty(Reserved),
    /// What this node has written when it ran the guest before.
    Kept(Box<Store>),
}

/// The guest that this node is about to run, as its history tells it.
pub struct Begin {
    /// Who is recorded.
    pub header: Header,
    /// This node.
    pub node: NodeId,
    /// The term in which it runs the guest.
    pub term: Term,
    /// Where the guest stands.
    pub at: Position,
}

/// A history that goes on.
pub struct History {
    /// Where the log begins, or goes on.
    pub start: SegmentStart,
    /// Where it goes.
    pub archive: Archive,
    /// Where the snapshots go. The first is taken at once, since the log has nothing to begin with before.
    pub keeper: Keeper,
}

impl Shelf {
    /// Opens `folder`, which may be empty.
    ///
    /// # Errors
    /// If its history cannot be continued here.
    pub fn open(folder: &Path, here: &Fingerprint) -> Result<Shelf, Failure> {
        if let Some(past) = Past::open(folder, here)? {
            return Ok(Shelf::from(past));
        }
        let reserved = Store::reserve(folder)?;
        let snapshots = PageStore::open(&reserved.snapshots_dir())?;
        Ok(Shelf { log: Log::Empty(reserved), snapshots })
    }

    /// Whose history it is, if it is anybody's.
    #[must_use]
    pub fn vm(&self) -> Option<VmId> {
        match &self.log {
            Log::Empty(_) => None,
            Log::Kept(store) => Some(store.header().vm),
        }
    }

    /// The content of the newest snapshot that is whole: most of the state that comes may be in it. Damage is said, and searched for in all
    /// snapshots, so that none that is taken later needs what is damaged.
    #[must_use]
    pub fn newest(&mut self) -> Option<Base> {
        let mut newest_first = self.snapshots.snapshots().list().to_vec();
        newest_first.sort_by_key(|manifest| Reverse(manifest.order()));
        let mut damaged = false;
        let base = newest_first.into_iter().find_map(|manifest| match self.content(&manifest) {
            Ok(base) => {
                tracing::info!("what the snapshot at position {} holds need not be sent", manifest.position);
                Some(base)
            }
            Err(error) => {
                tracing::warn!("the snapshot at position {} is of no use: {error}", manifest.position);
                damaged |= matches!(error, RestoreError::Store(_));
                None
            }
        });
        if damaged && let Err(error) = self.snapshots.verify() {
            tracing::warn!("it is not known what else is damaged in the snapshots: {error}");
        }
        base
    }

    fn content(&self, manifest: &Manifest) -> Result<Base, RestoreError> {
        let memory = Memory::new(manifest.memory)?;
        let (_, digests) = self.snapshots.snapshots().load(manifest.position, &memory)?;
        Ok(Base { memory, digests, state: None })
    }

    /// The guest comes here: its history goes on behind a gap, if there is any. Nothing waits for the disk here.
    #[must_use]
    pub fn begin(self, begin: Begin, store: &StoreArgs, gate: Arc<Gate>) -> History {
        let Shelf { log, snapshots } = self;
        let Begin { header, node, term, at } = begin;
        let start = match &log {
            Log::Empty(_) => SegmentStart { position: at, ..SegmentStart::first(term) },
            Log::Kept(store) => store.start_behind_gap(term, at),
        };
        let durable = store.ack == Ack::Disk;
        let open = move || {
            let mut store = match log {
                Log::Empty(reserved) => reserved.create(&header)?,
                Log::Kept(store) => *store,
            };
            // The gap comes first. Until a snapshot is behind it, nobody goes on from this store: least of all from what was here before,
            // by the arbiter's record of this term.
            store.begin(&start)?;
            store.set_writer(Writer { node, arbitrated: true, durable })?;
            Ok(store)
        };
        let archive = Archive::later(open, at, durable.then_some(gate));
        let keeper = store.keep.keeper(snapshots, at).without_first();
        History { start, archive, keeper }
    }
}

impl From<Past> for Shelf {
    fn from(past: Past) -> Shelf {
        Shelf::from((past.store, past.snapshots))
    }
}

impl From<(Store, PageStore)> for Shelf {
    fn from((store, snapshots): (Store, PageStore)) -> Shelf {
        Shelf { log: Log::Kept(Box::new(store)), snapshots }
    }
}
