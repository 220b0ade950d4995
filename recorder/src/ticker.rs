//! Calls a guest out that makes no exit for too long.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use echovisor_machine::cpu::Kick;

/// There is no deadline: the guest does not run.
const NONE: u64 = 0;

/// The thread that calls out. It sleeps as long as the guest does, and wakes about once for each deadline that has passed,
/// not for each that was set.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    /// What deadlines are counted from.
    epoch: Instant,
}

struct Shared {
    /// When the guest is to be called out, nanoseconds; or [`NONE`].
    deadline: AtomicU64,
    /// The thread sleeps until it is woken.
    parked: AtomicBool,
    ended: AtomicBool,
}

impl Ticker {
    /// Starts the thread for the processor that `kick` calls out; it ends when this is dropped.
    ///
    /// # Errors
    /// If the host has no thread left.
    pub fn start(kick: Box<dyn Kick>) -> io::Result<Ticker> {
        let shared = Arc::new(Shared {
            deadline: AtomicU64::new(NONE),
            parked: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let (epoch, watched) = (Instant::now(), shared.clone());
        let thread =
            thread::Builder::new().name("ticker".into()).spawn(move || watch(&watched, epoch, &*kick))?;
        Ok(Ticker { shared, thread: thread.thread().clone(), epoch })
    }

    /// The guest is about to run, and is to be called out if it still does at `deadline`.
    pub(crate) fn enter(&self, deadline: Instant) {
        let deadline = deadline.saturating_duration_since(self.epoch).as_nanos() as u64;
        // Whoever parks looks at the deadline after it has said so, so one of both sees the other.
        self.shared.deadline.store(deadline.max(NONE + 1), Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) && self.shared.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// The guest has come out.
    pub(crate) fn leave(&self) {
        self.shared.deadline.store(NONE, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn watch(shared: &Shared, epoch: Instant, kick: &dyn Kick) {
    while !shared.ended.load(Ordering::SeqCst) {
        let deadline = shared.deadline.load(Ordering::SeqCst);
        if deadline == NONE {
            shared.parked.store(true, Ordering::SeqCst);
            if shared.deadline.load(Ordering::SeqCst) == NONE && !shared.ended.load(Ordering::SeqCst) {
                thread::park();
            }
            shared.parked.store(false, Ordering::SeqCst);
            continue;
        }
        let left = (epoch + Duration::from_nanos(deadline)).saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::park_timeout(left);
        } else if shared.deadline.compare_exchange(deadline, NONE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            kick.kick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(flume::Sender<()>);

    impl Kick for Told {
        fn kick(&self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn who_does_not_come_out_is_called_once() {
        let (told, kicks) = flume::unbounded();
        let ticker = Ticker::start(Box::new(Told(told))).unwrap();
        for _ in 0..3 {
            ticker.enter(Instant::now());
            kicks.recv().expect("a kick");
            ticker.leave();
        }
        ticker.enter(Instant::now() + Duration::from_secs(3600));
        ticker.leave();
        // Whatever it sleeps for, it ends.
        drop(ticker);
        assert!(kicks.recv().is_err(), "nobody was to be called out");
    }
}
