//! Where batches come from.

use std::{
    convert::Infallible,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use echovisor_log::{Batch, Mark};

/// A batch that has come in.
pub struct Arrived {
    /// Its records.
    pub batch: Batch,
    /// What was known when it was closed.
    pub mark: Mark,
    /// When it came in.
    pub at: Instant,
}

/// A source of batches, in order.
pub trait History {
    /// What can be wrong with it.
    type Error: Error;

    /// The next batch; waits for it where it may still come. `None` means that the log ends.
    ///
    /// # Errors
    /// If the log goes on but cannot be read.
    fn next(&mut self) -> Result<Option<Arrived>, Self::Error>;

    /// Takes a batch back whose records have been used.
    fn recycle(&mut self, batch: Batch);
}

/// Batches from the link, through a bounded channel. The log ends when the sender is dropped and all batches are used, or when
/// it is `given_up`.
pub struct Incoming {
    /// What has come in.
    pub batches: flume::Receiver<Arrived>,
    /// Where used batches go.
    pub spare: flume::Sender<Batch>,
    /// Nobody wants to know any more what the rest of the log leads to.
    pub given_up: Arc<AtomicBool>,
}

impl History for Incoming {
    type Error = Infallible;

    fn next(&mut self) -> Result<Option<Arrived>, Infallible> {
        Ok(self.batches.recv().ok().filter(|_| !self.given_up.load(Ordering::Relaxed)))
    }

    fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        // A full pool means that the batch is one too many.
        let _ = self.spare.try_send(batch);
    }
}
