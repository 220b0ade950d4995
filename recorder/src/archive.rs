//! Writing the log to disk, on a thread of its own, because a disk may take its time.

use std::{
    iter,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use echovisor_log::{
    Batch, Head, SegmentStart,
    store::{Store, StoreError},
};

use crate::gate::Gate;

/// Batches that may wait for the disk; when there are more, the guest waits.
const DEPTH: usize = 64;

/// After one batch the thread looks for the next one this late, after more of them sooner: to be woken for every batch would cost
/// more than to write it, but they must not pile up.
const STRIDE: Duration = Duration::from_millis(20);

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
    /// Starts writing to `store`, with a segment that begins at `start`. That is on disk before anything else happens: who finds
    /// no segment knows that nothing ran.
    ///
    /// # Errors
    /// If the disk does not take the segment.
    pub fn new(store: Store, start: SegmentStart) -> Result<Archive, StoreError> {
        Archive::start(store, start, None)
    }

    /// The same, for a log by which effects wait at `gate`: that is told what is on disk as soon as it is. What comes while the
    /// disk is at work goes together the next time.
    ///
    /// # Errors
    /// As [`Archive::new`].
    pub fn awaited(store: Store, start: SegmentStart, gate: Arc<Gate>) -> Result<Archive, StoreError> {
        gate.require_disk(start.position);
        Archive::start(store, start, Some(gate))
    }

    fn start(mut store: Store, start: SegmentStart, gate: Option<Arc<Gate>>) -> Result<Archive, StoreError> {
        store.begin(&start)?;
        let (items, receiver) = flume::bounded(DEPTH);
        let (used, spare) = flume::bounded(DEPTH);
        let thread = thread::spawn(move || write(store, &receiver, &used, gate.as_deref()));
        Ok(Archive { items, spare, thread })
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
    items: &flume::Receiver<Item>,
    used: &flume::Sender<Batch>,
    gate: Option<&Gate>,
) -> Result<(), StoreError> {
    while let Ok(first) = items.recv() {
        let mut watermark = None;
        let mut taken = 0;
        for item in iter::once(first).chain(items.try_iter().take(DEPTH)) {
            taken += 1;
            match item {
                Item::Begin(start) => store.begin(&start)?,
                Item::Append(head, batch, body) => {
                    store.append(&head, &batch, &body)?;
                    watermark = Some(head.mark.watermark);
                    // A full pool means that the batch is one too many.
                    let _ = used.try_send(batch);
                }
            }
        }
        let Some(gate) = gate else {
            thread::sleep(STRIDE / taken);
            continue;
        };
        if let Some(watermark) = watermark {
            store.sync()?;
            gate.written(watermark);
        }
    }
    store.seal()?;
    store.flush()
}
