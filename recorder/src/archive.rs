//! Writing the log to disk, on a thread of its own, because a disk may take its time.

use std::{
    iter,
    thread::{self, JoinHandle},
    time::Duration,
};

use echovisor_log::{
    Batch, Head, SegmentStart,
    store::{Store, StoreError},
};

/// Batches that may wait for the disk; when there are more, the guest waits.
const DEPTH: usize = 64;

/// The thread looks for work this often. To be woken for every batch would cost more than to write it.
const STRIDE: Duration = Duration::from_millis(5);

enum Item {
    Begin(SegmentStart),
    Append(Head, Batch, Vec<u8>),
}

/// A store that is written by a thread.
pub struct Archive {
    items: flume::Sender<Item>,
    spare: flume::Receiver<Batch>,
    thread: JoinHandle<Result<(), StoreError>>,
}

impl Archive {
    /// Starts writing to `store`, with a segment that begins at `start`.
    #[must_use]
    pub fn new(store: Store, start: SegmentStart) -> Archive {
        let (items, receiver) = flume::bounded(DEPTH);
        let (used, spare) = flume::bounded(DEPTH);
        let thread = std::thread::spawn(move || write(store, start, &receiver, &used));
        Archive { items, spare, thread }
    }

    /// Begins a segment.
    ///
    /// # Errors
    /// The disk's error, if the thread has ended with one.
    pub fn begin(&self, start: SegmentStart) -> Result<(), Failed> {
        self.items.send(Item::Begin(start)).map_err(|_| Failed)
    }

    /// Appends a batch with its encoded body; waits while the disk is behind.
    ///
    /// # Errors
    /// As [`Archive::begin`].
    pub fn append(&self, head: Head, batch: Batch, body: Vec<u8>) -> Result<(), Failed> {
        self.items.send(Item::Append(head, batch, body)).map_err(|_| Failed)
    }

    /// Whether something can be handed over without waiting for the disk.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // A segment may begin together with its first batch. A thread that has ended takes nothing, and that must be seen.
        self.items.is_disconnected() || self.items.len() + 2 <= DEPTH
    }

    /// A batch that has been written, to be filled again.
    pub fn spare(&self) -> Option<Batch> {
        self.spare.try_recv().ok()
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// The first error of the disk. What was written before it stays readable.
    pub fn close(self) -> Result<(), StoreError> {
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

fn write(
    mut store: Store,
    start: SegmentStart,
    items: &flume::Receiver<Item>,
    used: &flume::Sender<Batch>,
) -> Result<(), StoreError> {
    store.begin(&start)?;
    while let Ok(first) = items.recv() {
        for item in iter::once(first).chain(items.try_iter()) {
            match item {
                Item::Begin(start) => store.begin(&start)?,
                Item::Append(head, batch, body) => {
                    store.append(&head, &batch, &body)?;
                    // A full pool means that the batch is one too many.
                    let _ = used.try_send(batch);
                }
            }
        }
        thread::sleep(STRIDE);
    }
    store.seal()?;
    store.flush()
}
