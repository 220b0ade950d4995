//! Batches to be filled again.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Batch;

/// Batches that one thread fills and another uses up, again and again; clones share them. The one that came back last is filled first: it is
/// still in the caches of one of the processors, the oldest is in none.
#[derive(Clone)]
pub struct Pool {
    batches: Arc<Mutex<Vec<Batch>>>,
    most: usize,
}

impl Pool {
    /// A pool that keeps so many batches at most.
    #[must_use]
    pub fn new(most: usize) -> Pool {
        Pool { batches: Arc::default(), most }
    }

    /// An empty batch, one that was given back if there is any.
    #[must_use]
    pub fn take(&self) -> Batch {
        let batch = self.batches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        batch.unwrap_or_default()
    }

    /// Takes a batch back whose records have been used. One too many is freed.
    pub fn give(&self, mut batch: Batch) {
        batch.clear();
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.len() < self.most {
            batches.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use echovisor_event::{Event, Position};

    use super::*;
    use crate::Record;

    #[test]
    fn the_batch_that_came_back_last_is_taken_first() {
        let pool = Pool::new(2);
        let batches = [(); 3].map(|()| pool.take());
        let places = batches.each_ref().map(|batch| batch.payload().as_ptr());
        for mut batch in batches {
            batch.push(Position::BOOT, Record::Event(Event::Wall(1))).unwrap();
            pool.give(batch);
        }
        let taken = [(); 3].map(|()| pool.clone().take());
        assert!(taken.iter().all(Batch::is_empty));
        let taken = taken.each_ref().map(|batch| batch.payload().as_ptr());
        // The third was one too many, and may come back as a new one.
        assert_eq!(taken[..2], [places[1], places[0]]);
    }
}
