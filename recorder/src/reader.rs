//! The thread that reads pages while the guest runs.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread,
};

use crate::{rounds::Round, signals::Signals};

/// The thread that reads pages while the guest runs.
pub struct Reader {
    rounds: flume::Sender<Round>,
    done: flume::Receiver<Round>,
}

impl Reader {
    /// Starts the thread; it ends when this is dropped. The guest's thread is told by `signals` that it has read.
    ///
    /// # Errors
    /// If the host has no thread left.
    pub fn start(signals: Arc<Signals>) -> io::Result<Reader> {
        let (rounds, begun) = flume::bounded::<Round>(1);
        let (ended, done) = flume::bounded(1);
        thread::Builder::new().name("pages".into()).spawn(move || {
            while let Ok(mut round) = begun.recv() {
                round.run();
                if ended.send(round).is_err() {
                    return;
                }
                signals.pause.store(true, Ordering::Release);
                signals.bell.ring();
            }
        })?;
        Ok(Reader { rounds, done })
    }

    /// Lets the thread run a round; it has none.
    pub(crate) fn run(&self, round: Round) {
        // A thread that is gone is noticed where its work is missed.
        let _ = self.rounds.send(round);
    }

    /// The round, if it is done.
    pub(crate) fn done(&self) -> Option<Round> {
        self.done.try_recv().ok()
    }

    /// Waits until the round is done.
    pub(crate) fn wait(&self) -> Round {
        self.done.recv().expect("the thread that reads pages lives")
    }
}
