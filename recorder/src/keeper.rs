//! Keeping snapshots, on a thread of its own: compressing pages and waiting for the disk take their time.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use echovisor_event::Position;
use echovisor_snapshot::{
    Capture, PageDigests,
    store::{Keep, PageStore, SnapshotParts, StoreError},
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
}

impl Keeper {
    /// Starts keeping snapshots in `store`, which has one of `last` already. `keep` tells which of them stay.
    #[must_use]
    pub fn new(store: PageStore, every: Every, keep: Keep, last: Position) -> Keeper {
        let (items, receiver) = flume::bounded(DEPTH);
        let thread = thread::spawn(move || write(store, keep, &receiver));
        let last = (last, Instant::now());
        Keeper { every, items, thread, last, asked: false, lacks_first: false, waiting: Vec::new() }
    }

    /// The same for a store that has no snapshot of `last`: one is taken as soon as that can be.
    #[must_use]
    pub fn without_first(self) -> Keeper {
        Keeper { lacks_first: true, ..self }
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

/// Writes what comes. A log without snapshots is worth more than none, so an error ends no more than this.
fn write(mut store: PageStore, keep: Keep, items: &flume::Receiver<Item>) -> PageStore {
    let mut digests = None;
    for Item { capture, segment, waiting } in items {
        let written = keep_one(&mut store, &mut digests, &capture, segment);
        let kept = if written.is_ok() { Kept::Written(capture.position()) } else { Kept::Failed };
        for reply in waiting {
            // Who asked may be gone.
            let _ = reply.send(kept);
        }
        match written.and_then(|()| store.retain(&keep, unix_time())) {
            Ok(_) => {}
            Err(StoreError::Damage(damage)) => tracing::warn!("no space is freed in the snapshots: {damage}"),
            Err(error) => {
                tracing::error!("no more snapshots are kept: {error}");
                return store;
            }
        }
    }
    store
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
