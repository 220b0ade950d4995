//! Writing the log to disk, on a thread of its own, because a disk may take its time.

use std::{
    iter,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use echovisor_event::Position;
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
        let (used, spare) = flume::bounded(DEPTH);
        let thread = thread::spawn(move || write(begin()?, &receiver, &used, gate.as_deref()));
        Archive { items, spare, thread, dispensable: false }
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

fn write(
    mut store: Store,
    items: &flume::Receiver<Item>,
    used: &flume::Sender<Batch>,
    gate: Option<&Gate>,
) -> Result<Store, StoreError> {
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
    store.flush()?;
    Ok(store)
}
