//! A log whose last part is kept, to be executed again.

use std::{collections::VecDeque, time::Instant};

use echovisor_event::Position;
use echovisor_log::{Batch, Mark};

use crate::{
    history::{Arrived, History},
    replay::Witness,
};

/// Most bytes of the log that are kept. A primary makes a checkpoint for each second of work, and no guest is given as much in
/// one; beyond this there is no going back until the next one is confirmed.
const KEPT_MAX: usize = 64 << 20;

/// What a record takes beside its payload, bytes, and a batch beside its records; roughly.
const RECORD: usize = 24;
const BATCH: usize = 256;

/// A history that keeps what was taken from it since the last confirmed checkpoint, and can give it again.
pub struct Rewindable<H> {
    inner: H,
    kept: VecDeque<Kept>,
    bytes: usize,
    /// How many of those that are kept come before the checkpoint that is not confirmed yet.
    marked: Option<usize>,
    /// Something behind the confirmed checkpoint was not kept.
    incomplete: bool,
    /// The next one to be given again, while there are any.
    again: Option<usize>,
    /// All of them have been given again.
    rewound: bool,
}

struct Kept {
    batch: Batch,
    mark: Mark,
    at: Instant,
    bytes: usize,
}

impl<H> Rewindable<H> {
    /// Keeps what is taken from `inner`, which begins behind a confirmed state.
    pub fn new(inner: H) -> Rewindable<H> {
        Rewindable {
            inner,
            kept: VecDeque::new(),
            bytes: 0,
            marked: None,
            incomplete: false,
            again: None,
            rewound: false,
        }
    }

    /// What it is taken from.
    pub fn inner(&mut self) -> &mut H {
        &mut self.inner
    }

    /// Whether the log behind the confirmed checkpoint is all there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.incomplete
    }

    /// Gives again what came behind the confirmed checkpoint. The log ends once when all of that was given; asked again, it goes
    /// on with what is new.
    pub(crate) fn rewind(&mut self) {
        self.marked = None;
        self.again = Some(0);
        self.rewound = false;
    }

    /// Whether the log has ended because all was given again. True once.
    pub fn take_rewound(&mut self) -> bool {
        std::mem::take(&mut self.rewound)
    }

    fn keep(&mut self, arrived: &Arrived) {
        if self.incomplete && self.marked.is_none() {
            return;
        }
        let batch = arrived.batch.compact();
        let bytes = BATCH + batch.payload_len() + RECORD * batch.len();
        self.bytes += bytes;
        self.kept.push_back(Kept { batch, mark: arrived.mark, at: arrived.at, bytes });
        if self.bytes > KEPT_MAX {
            self.kept.clear();
            self.bytes = 0;
            self.marked = None;
            self.incomplete = true;
        }
    }
}

impl<H: History> History for Rewindable<H> {
    type Error = H::Error;

    fn next(&mut self) -> Result<Option<Arrived>, H::Error> {
        if let Some(index) = self.again {
            if let Some(kept) = self.kept.get(index) {
                self.again = Some(index + 1);
                return Ok(Some(Arrived { batch: kept.batch.compact(), mark: kept.mark, at: kept.at }));
            }
            self.again = None;
            self.rewound = true;
            return Ok(None);
        }
        let arrived = self.inner.next()?;
        if let Some(arrived) = &arrived {
            self.keep(arrived);
        }
        Ok(arrived)
    }

    fn recycle(&mut self, batch: Batch) {
        self.inner.recycle(batch);
    }

    fn mark(&mut self) {
        if self.incomplete {
            self.kept.clear();
            self.bytes = 0;
        }
        self.marked = Some(self.again.unwrap_or(self.kept.len()));
    }

    fn confirm(&mut self) {
        let Some(marked) = self.marked.take() else { return };
        self.bytes -= self.kept.drain(..marked).map(|kept| kept.bytes).sum::<usize>();
        self.again = self.again.map(|again| again - marked);
        self.incomplete = false;
    }
}

/// A [`Witness`] of what may be done again.
pub trait Rewind: Witness {
    /// What the guest did behind this position is to be forgotten: it will do it again.
    fn rewind(&mut self, to: Position);
}
