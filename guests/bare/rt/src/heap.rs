//! The heap: all RAM between the image and the stack.

use crate::control;
use talc::lock_api::{GuardNoSend, RawMutex};
use talc::source::Manual;

/// Top of RAM that belongs to the stack.
const STACK_SIZE: usize = 1 << 20;

#[global_allocator]
static HEAP: talc::TalcLock<Uncontended, Manual> = talc::TalcLock::new(Manual);

/// The lock of a program with one thread and no interrupts: it is always free.
struct Uncontended;

// SAFETY: there is one thread, nothing interrupts it, and the allocator does not call itself; no two can hold the lock.
unsafe impl RawMutex for Uncontended {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait demands it")]
    const INIT: Self = Self;
    type GuardMarker = GuardNoSend;

    fn lock(&self) {}

    fn try_lock(&self) -> bool {
        true
    }

    unsafe fn unlock(&self) {}
}

/// Gives the heap its memory.
///
/// # Safety
///
/// Called once, before the first allocation.
pub(crate) unsafe fn start() {
    let base = control::image_end();
    // SAFETY: the contract leaves this range to the guest, and nothing else in it uses it.
    let claimed = unsafe { HEAP.lock().claim(base as *mut u8, size()) };
    assert!(claimed.is_some(), "not enough memory for a heap");
}

/// Bytes that the heap has.
pub fn size() -> usize {
    control::memory_size().saturating_sub(control::image_end() + STACK_SIZE)
}

/// Bytes that are allocated.
pub fn used() -> usize {
    HEAP.lock().counters().allocated_bytes
}
