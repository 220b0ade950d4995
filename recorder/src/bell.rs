//! Getting the attention of the guest's thread.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the guest's thread where it waits for input, and tells it cheaply whether somebody rang since it looked last.
pub struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    /// A silent bell.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn new() -> io::Result<Bell> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Bell { fd, rung: AtomicBool::new(false) })
    }

    /// Rings. What the ringer wrote before, the guest's thread sees after [`Bell::answer`].
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // The counter can only be full if it was rung 2^64 times; it is readable then as well.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Whether it was rung since the last answer. No system call.
    #[must_use]
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Silences the bell. Look at what the ringers want afterwards, not before.
    ///
    /// The exchange makes that order hold: whoever finds the bell still rung, and so does nothing, wrote what it wants
    /// before this.
    pub fn answer(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Makes the descriptor unreadable again, by which the guest's thread was woken. Look at [`Bell::is_rung`] before the
    /// thread sleeps again.
    pub fn hush(&self) {
        // There is nothing to read if nobody rang.
        let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
