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

use echovisor_log::{Batch, Mark, Pool};

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

    /// All that was given so far has been executed, up to a checkpoint.
    fn mark(&mut self) {}

    /// The machine's state at the last [mark](History::mark) was the recorded one.
    fn confirm(&mut self) {}
}

/// What a node sends to its replaying thread.
pub enum Fed {
    /// The next batch.
    Batch(Arrived),
    /// If the machine has left the log's course, it is to go back to its last verified state and execute all batches before this
    /// again.
    GoBack,
}

/// Batches from the link, through a bounded channel. The log ends when the sender is dropped and all batches are used, or when
/// it is `given_up`; and once at each [`Fed::GoBack`].
pub struct Incoming {
    /// What has come in.
    pub fed: flume::Receiver<Fed>,
    /// Where used batches go.
    pub spare: Pool,
    /// Nobody wants to know any more what the rest of the log leads to.
    pub given_up: Arc<AtomicBool>,
    /// The log has ended because of [`Fed::GoBack`].
    pub told: bool,
}

impl History for Incoming {
    type Error = Infallible;

    fn next(&mut self) -> Result<Option<Arrived>, Infallible> {
        match self.fed.recv().ok().filter(|_| !self.given_up.load(Ordering::Relaxed)) {
            Some(Fed::Batch(arrived)) => Ok(Some(arrived)),
            Some(Fed::GoBack) => {
                self.told = true;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn recycle(&mut self, batch: Batch) {
        self.spare.give(batch);
    }
}
