//! The thread that reads pages while the guest runs.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread,
};

use crate::{rounds::Reading, signals::Signals};

/// The thread that reads pages while the guest runs.
pub struct Reader {
    readings: flume::Sender<Reading>,
    done: flume::Receiver<Reading>,
}

impl Reader {
    /// Starts the thread; it ends when this is dropped. The guest's thread is told by `signals` that it has read.
    ///
    /// # Errors
    /// If the host has no thread left.
    pub fn start(signals: Arc<Signals>) -> io::Result<Reader> {
        let (readings, begun) = flume::bounded::<Reading>(1);
        let (ended, done) = flume::bounded(1);
        thread::Builder::new().name("pages".into()).spawn(move || {
            while let Ok(mut reading) = begun.recv() {
                reading.run();
                if ended.send(reading).is_err() {
                    return;
                }
                signals.pause.store(true, Ordering::Release);
                signals.bell.ring();
            }
        })?;
        Ok(Reader { readings, done })
    }

    /// Lets the thread read something; it has nothing.
    pub(crate) fn run(&self, reading: Reading) {
        // A thread that is gone is noticed where its work is missed.
        let _ = self.readings.send(reading);
    }

    /// What it has read, if it is done.
    pub(crate) fn done(&self) -> Option<Reading> {
        self.done.try_recv().ok()
    }

    /// Waits until it is done.
    pub(crate) fn wait(&self) -> Reading {
        self.done.recv().expect("the thread that reads pages lives")
    }
}
