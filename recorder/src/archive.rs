//! Writing the log to disk, on a thread of its own, because a disk may take its time.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use echovisor_event::{Digest, Position};
use echovisor_log::{
    Head, SegmentStart,
    store::{Store, StoreError},
};
use flume::RecvTimeoutError;

use crate::gate::Gate;

/// Batches that may wait for the disk; when there are more, the guest waits.
const DEPTH: usize = 256;

/// So long the thread lets what nobody waits for gather: to be woken for every batch would cost more than to write it.
const STRIDE: Duration = Duration::from_millis(50);

/// When so many had gathered it goes on at once: more may follow, and they must not pile up.
const MANY: usize = DEPTH / 8;

/// What nobody waits for is made durable so soon: that much is lost with the power, and no more.
const SYNC_AFTER: Duration = Duration::from_secs(5);

enum Item {
    Begin(SegmentStart),
    Append(Head, Vec<(Position, Digest)>, Vec<u8>),
}

/// A store that is written by a thread.
pub struct Archive {
    items: flume::Sender<Item>,
    thread: JoinHandle<Result<Store, StoreError>>,
    /// The guest goes on without it.
    dispensable: bool,
}

impl Archive {
    /// Starts writing to `store`, with a segment that begins at `start`. That is on disk before anything else happens: who finds
    /// no segment knows that nothing ran.
    ///
    /// # Errors
    /// If the disk does not take the segment.
    pub fn new(mut store: Store, start: SegmentStart) -> Result<Archive, StoreError> {
        store.begin(&start)?;
        Ok(Archive::start(|| Ok(store), None))
    }

    /// The same, for a log by which effects wait at `gate`: that is told what is on disk as soon as it is. What comes while the
    /// disk is at work goes together the next time.
    ///
    /// # Errors
    /// As [`Archive::new`].
    pub fn awaited(mut store: Store, start: SegmentStart, gate: Arc<Gate>) -> Result<Archive, StoreError> {
        store.begin(&start)?;
        gate.require_disk(start.position);
        Ok(Archive::start(|| Ok(store), Some(gate)))
    }

    /// Starts writing to the store that `begin` gives, in which it has begun a segment at `position`. That happens on the thread: the guest
    /// may run before. If there is a `gate`, effects wait there as for [`Archive::awaited`]; else the guest goes on also when the disk fails.
    pub fn later(
        begin: impl FnOnce() -> Result<Store, StoreError> + Send + 'static,
        position: Position,
        gate: Option<Arc<Gate>>,
    ) -> Archive {
        if let Some(gate) = &gate {
            gate.require_disk(position);
        }
        Archive { dispensable: gate.is_none(), ..Archive::start(begin, gate) }
    }

    /// Whether a guest goes on when the disk fails.
    pub(crate) fn is_dispensable(&self) -> bool {
        self.dispensable
    }

    fn start(
        begin: impl FnOnce() -> Result<Store, StoreError> + Send + 'static,
        gate: Option<Arc<Gate>>,
    ) -> Archive {
        let (items, receiver) = flume::bounded(DEPTH);
        let thread = thread::spawn(move || write(begin()?, &receiver, gate.as_deref()));
        Archive { items, thread, dispensable: false }
    }

    /// Begins a segment.
    ///
    /// # Errors
    /// The disk's error, if the thread has ended with one.
    pub fn begin(&self, start: SegmentStart) -> Result<(), Failed> {
        self.items.send(Item::Begin(start)).map_err(|_| Failed)
    }

    /// Appends an encoded batch, which holds these digests; waits while the disk is behind.
    ///
    /// # Errors
    /// As [`Archive::begin`].
    pub fn append(&self, head: Head, digests: Vec<(Position, Digest)>, body: Vec<u8>) -> Result<(), Failed> {
        self.items.send(Item::Append(head, digests, body)).map_err(|_| Failed)
    }

    /// Whether something can be handed over without waiting for the disk.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // A segment may begin together with its first batch. A thread that has ended takes nothing, and that must be seen.
        self.items.is_disconnected() || self.items.len() + 2 <= DEPTH
    }

    /// Waits until everything is on disk, and gives the store back.
    ///
    /// # Errors
    /// The first error of the disk. What was written before it stays readable.
    pub fn close(self) -> Result<Store, StoreError> {
        drop(self.items);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The thread has ended with an error, which [`Archive::close`] tells.
#[derive(Clone, Copy, Debug)]
pub struct Failed;

fn write(mut store: Store, items: &flume::Receiver<Item>, gate: Option<&Gate>) -> Result<Store, StoreError> {
    // Since when there is something that is not durable.
    let mut unsynced: Option<Instant> = None;
    loop {
        let first = match unsynced {
            Some(since) => items.recv_deadline(since + SYNC_AFTER),
            None => items.recv().map_err(RecvTimeoutError::from),
        };
        let first = match first {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut watermark = None;
        let mut taken = 0;
        for item in first.into_iter().chain(items.try_iter().take(DEPTH)) {
            taken += 1;
            match item {
                Item::Begin(start) => store.begin(&start)?,
                Item::Append(head, digests, body) => {
                    store.append(&head, digests, &body)?;
                    watermark = Some(head.mark.watermark);
                }
            }
        }
        if let Some(gate) = gate {
            if let Some(watermark) = watermark {
                store.sync()?;
                gate.written(watermark);
            }
        } else if unsynced.is_some_and(|since| since.elapsed() >= SYNC_AFTER) {
            store.sync()?;
            unsynced = None;
        } else {
            unsynced.get_or_insert_with(Instant::now);
            if taken < MANY {
                thread::sleep(STRIDE);
            }
        }
    }
    store.seal()?;
    store.flush()?;
    Ok(store)
}
