//! What the guest's thread and the others tell each other without a lock.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::bell::Bell;

/// What other threads tell the guest's thread; ring the bell after changing something.
pub struct Signals {
    /// Wakes the guest's thread.
    pub bell: Bell,
    /// Somebody wants the machine at a boundary.
    pub pause: AtomicBool,
    /// The secondary is behind: the guest waits.
    pub throttle: AtomicBool,
    /// The guest is not to start before it is protected.
    pub hold: AtomicBool,
    /// Nobody keeps the log or follows it: deltas need not be written.
    pub unread: AtomicBool,
    /// The position where the machine stands, for `status`.
    pub position: AtomicU64,
    /// Frame bytes that the guest has received.
    pub received: AtomicU64,
    /// How long the guest has run, without its sleep, nanoseconds.
    pub busy: AtomicU64,
    /// Deltas that were written.
    pub deltas: AtomicU64,
    /// Pages in them.
    pub delta_pages: AtomicU64,
    /// How long it stood still when it last had to, for a delta, a checkpoint, a capture or what leads to them, nanoseconds.
    pub pause_last: AtomicU64,
    /// The longest that it had to stand still, nanoseconds.
    pub pause_longest: AtomicU64,
}

impl Signals {
    /// Nothing is wanted.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            bell: Bell::new()?,
            pause: AtomicBool::new(false),
            throttle: AtomicBool::new(false),
            hold: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            position: AtomicU64::new(0),
            received: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            deltas: AtomicU64::new(0),
            delta_pages: AtomicU64::new(0),
            pause_last: AtomicU64::new(0),
            pause_longest: AtomicU64::new(0),
        })
    }

    /// The guest stood still for so long.
    pub(crate) fn paused(&self, pause: Duration) {
        let pause = pause.as_nanos() as u64;
        self.pause_last.store(pause, Ordering::Relaxed);
        self.pause_longest.fetch_max(pause, Ordering::Relaxed);
    }
}
