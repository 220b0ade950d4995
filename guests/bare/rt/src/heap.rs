//! The heap: all RAM between the image and the stack, and what lies above 4 GiB.

use crate::control;
use talc::lock_api::{GuardNoSend, RawMutex};
use talc::source::Manual;

/// Top of the RAM below 4 GiB that belongs to the stack.
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
    for (base, size) in parts() {
        // SAFETY: the contract leaves this range to the guest, and nothing else in it uses it.
        let claimed = unsafe { HEAP.lock().claim(base as *mut u8, size) };
        assert!(size == 0 || claimed.is_some(), "not enough memory for a heap");
    }
}

/// Where the heap's parts begin, and their sizes. The second may be empty.
fn parts() -> [(usize, usize); 2] {
    let (memory, base) = (control::memory_size(), control::image_end());
    let low = memory.min(abi::LOW_MEMORY_END as usize);
    [(base, low.saturating_sub(base + STACK_SIZE)), (abi::HIGH_MEMORY as usize, memory - low)]
}

/// Bytes that the heap has.
pub fn size() -> usize {
    parts().into_iter().map(|(_, size)| size).sum()
}

/// Bytes that are allocated.
pub fn used() -> usize {
    HEAP.lock().counters().allocated_bytes
}
