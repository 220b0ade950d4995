//! Keeping snapshots, on a thread of its own: compressing pages and waiting for the disk take their time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use echovisor_event::Position;
use echovisor_snapshot::{
    Capture, PageDigests,
    store::{Keep, Manifest, PageStore, SnapshotParts, StoreError},
};
use tokio::sync::oneshot;

/// Captures that may wait for the disk. Each holds what has changed since the one before. While one waits, no other is made,
/// unless somebody asks for it.
const DEPTH: usize = 2;

/// How far a snapshot is from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// So many positions at least.
    Positions(u64),
    /// So much time at least. A guest that goes nowhere needs no snapshot.
    Time(Duration),
}

/// What became of a snapshot that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is on disk.
    Written(Position),
    /// The disk did not take it.
    Failed,
    /// There is no place for it.
    Nowhere,
}

/// How a node's snapshots are, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperStatus {
    /// How many there are.
    pub count: usize,
    /// Bytes that they take on disk.
    pub bytes: u64,
    /// The last one.
    pub last: Option<Manifest>,
    /// Why no more are written, once that is so.
    pub ended: Option<String>,
    /// Why no space is freed, while that is so.
    pub unfreed: Option<String>,
}

struct Item {
    capture: Arc<Capture>,
    segment: u64,
    waiting: Vec<oneshot::Sender<Kept>>,
}

/// Snapshots that are written by a thread, and when the next one is due.
pub struct Keeper {
    every: Every,
    items: flume::Sender<Item>,
    thread: JoinHandle<PageStore>,
    /// Where and when the last one was asked for.
    last: (Position, Instant),
    asked: bool,
    /// There is none to begin with yet.
    lacks_first: bool,
    /// Who waits for the next one.
    waiting: Vec<oneshot::Sender<Kept>>,
    /// How they are, as the thread sees it.
    seen: Arc<Mutex<KeeperStatus>>,
}

impl Keeper {
    /// Starts keeping snapshots in `store`, which has one of `last` already. `keep` tells which of them stay.
    #[must_use]
    pub fn new(store: PageStore, every: Every, keep: Keep, last: Position) -> Keeper {
        let (items, receiver) = flume::bounded(DEPTH);
        let seen = Arc::default();
        let writer = Writer { store, keep, seen: Arc::clone(&seen) };
        let thread = thread::spawn(move || writer.write(&receiver));
        let last = (last, Instant::now());
        Keeper { every, items, thread, last, asked: false, lacks_first: false, waiting: Vec::new(), seen }
    }

    /// The same for a store that has no snapshot of `last`: one is taken as soon as that can be.
    #[must_use]
    pub fn without_first(self) -> Keeper {
        Keeper { lacks_first: true, ..self }
    }

    /// How the snapshots are.
    #[must_use]
    pub fn status(&self) -> KeeperStatus {
        lock(&self.seen).clone()
    }

    /// Somebody wants a snapshot now.
    pub fn want(&mut self, reply: oneshot::Sender<Kept>) {
        if self.items.is_disconnected() {
            // Who asked may be gone.
            let _ = reply.send(Kept::Failed);
        } else {
            self.waiting.push(reply);
        }
    }

    /// Whether to ask for a capture, now that the guest has come to `at`: then it is taken as asked for.
    pub fn asks(&mut self, at: Position) -> bool {
        let due = match self.every {
            Every::Positions(positions) => at.0.saturating_sub(self.last.0.0) >= positions,
            Every::Time(time) => at > self.last.0 && self.last.1.elapsed() >= time,
        };
        let due = (due && self.items.is_empty())
            || ((self.lacks_first || !self.waiting.is_empty()) && !self.items.is_full());
        // A thread that has ended takes no more.
        let asks = due && !self.asked && !self.items.is_disconnected();
        if asks {
            (self.last, self.asked, self.lacks_first) = ((at, Instant::now()), true, false);
        }
        asks
    }

    /// Whether to ask for a capture of a guest that is about to be stopped: then it is taken as asked for.
    pub fn asks_last(&mut self) -> bool {
        let asks = !self.items.is_full() && !self.items.is_disconnected();
        self.asked |= asks;
        asks
    }

    /// Takes the capture that was asked for. The log's segment with this number begins where it was made.
    pub fn take(&mut self, capture: Arc<Capture>, segment: u64) {
        self.asked = false;
        let item = Item { capture, segment, waiting: std::mem::take(&mut self.waiting) };
        // There is room, since nothing was asked for while there was none. A thread that has ended has said why.
        let _ = self.items.try_send(item);
    }

    /// Waits until everything is on disk, and gives the store back.
    pub fn close(self) -> PageStore {
        drop(self.items);
        match self.thread.join() {
            Ok(store) => store,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The thread's part.
struct Writer {
    store: PageStore,
    keep: Keep,
    seen: Arc<Mutex<KeeperStatus>>,
}

impl Writer {
    /// Writes what comes. A log without snapshots is worth more than none, so an error ends no more than this.
    fn write(mut self, items: &flume::Receiver<Item>) -> PageStore {
        self.look();
        let mut digests = None;
        for Item { capture, segment, waiting } in items {
            let written = keep_one(&mut self.store, &mut digests, &capture, segment);
            let kept = if written.is_ok() { Kept::Written(capture.position()) } else { Kept::Failed };
            let mut ends = self.ends(written);
            for reply in waiting {
                // Who asked may be gone.
                let _ = reply.send(kept);
            }
            if kept != Kept::Failed {
                let retained = self.store.retain(&self.keep, unix_time());
                ends = self.ends(retained.map(drop));
            }
            if ends {
                break;
            }
        }
        self.store
    }

    /// Keeps account of what there is.
    fn look(&self) {
        let snapshots = self.store.snapshots();
        // Files are asked for their size here, and nobody waits for that.
        let bytes = snapshots.stored_bytes();
        let mut seen = lock(&self.seen);
        seen.count = snapshots.list().len();
        seen.last = snapshots.list().iter().max_by_key(|manifest| manifest.order()).copied();
        seen.bytes = bytes.unwrap_or(seen.bytes);
    }

    /// Keeps account of what was done. Returns whether it went so wrong that no more can be.
    fn ends(&self, done: Result<(), StoreError>) -> bool {
        self.look();
        let (ended, unfreed) = match done {
            Ok(()) => (None, None),
            Err(StoreError::Damage(damage)) => {
                tracing::warn!("no space is freed in the snapshots: {damage}");
                (None, Some(damage.to_string()))
            }
            Err(error) => {
                tracing::error!("no more snapshots are kept: {error}");
                (Some(error.to_string()), None)
            }
        };
        let mut seen = lock(&self.seen);
        (seen.ended, seen.unfreed) = (ended, unfreed);
        seen.ended.is_some()
    }
}

fn lock(seen: &Mutex<KeeperStatus>) -> MutexGuard<'_, KeeperStatus> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_one(
    store: &mut PageStore,
    digests: &mut Option<PageDigests>,
    capture: &Capture,
    segment: u64,
) -> Result<(), StoreError> {
    let digests = match digests {
        Some(digests) if !capture.is_complete() => {
            capture.update(digests);
            digests
        }
        digests => digests.insert(capture.page_digests()),
    };
    let parts = SnapshotParts { state: capture.state(), digests, taken: unix_time(), segment };
    let written = store.write(&parts, capture)?;
    tracing::debug!(position = capture.position().0, ?written, "a snapshot was written");
    Ok(())
}

/// Seconds of UNIX time.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use echovisor_event::limits::MEMORY_MIN;
    use echovisor_machine::{
        Machine, MachineState, Memory, cpu::scripted::ScriptedCpu, devices::DevicesConfig,
    };
    use echovisor_snapshot::Precopy;

    use super::*;

    /// What a guest's thread would have made at `position`.
    fn capture(position: u64) -> Arc<Capture> {
        let memory = Memory::new(MEMORY_MIN).unwrap();
        let config = DevicesConfig { mac: None, mtu: 1500 };
        let machine = Machine::new(ScriptedCpu::new(memory.clone(), 0), memory, &config);
        let state = MachineState { position: Position(position), ..machine.save().unwrap() };
        Arc::new(Precopy::new(machine.memory(), true).finish(state))
    }

    /// Asks for a snapshot, and waits for what becomes of it.
    async fn keep(keeper: &mut Keeper, position: u64, segment: u64) -> Kept {
        let (reply, kept) = oneshot::channel();
        keeper.want(reply);
        assert!(keeper.asks(Position(position)));
        keeper.take(capture(position), segment);
        kept.await.unwrap()
    }

    #[tokio::test]
    async fn a_store_that_takes_no_more_snapshots_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = PageStore::open(folder.path()).unwrap();
        let mut keeper = Keeper::new(store, Every::Positions(1000), Keep::default(), Position::BOOT);
        assert_eq!(keeper.status(), KeeperStatus::default());
        assert_eq!(keep(&mut keeper, 5, 101).await, Kept::Written(Position(5)));
        // After a time at another node the guest has come back to an earlier position.
        assert_eq!(keep(&mut keeper, 1, 200).await, Kept::Written(Position(1)));
        let status = keeper.status();
        let last = status.last.unwrap();
        assert_eq!((status.count, last.position, last.segment), (2, Position(1), 200));
        assert!(status.bytes > 0 && status.ended.is_none(), "{status:?}");

        let manifest = folder.path().join("manifests/00000000000000000002.snapshot.tmp");
        symlink("/dev/full", manifest).unwrap();
        assert_eq!(keep(&mut keeper, 2, 201).await, Kept::Failed);
        let status = keeper.status();
        assert_eq!((status.count, status.last), (2, Some(last)));
        assert!(status.ended.is_some_and(|why| why.starts_with("no space is left")));
        keeper.close();
    }
}
