//! Calling a vCPU out of the guest from another thread.

use std::{
    ptr::NonNull,
    sync::{
        Arc, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering},
    },
};

use kvm_bindings::kvm_run;

use crate::cpu::Kick;

/// Makes a running vCPU leave the guest with [`Reason::Kicked`](crate::cpu::Reason::Kicked).
///
/// Clones reach the same vCPU; once the vCPU is gone they do nothing.
#[derive(Clone)]
pub struct Kicker(Arc<Target>);

struct Target {
    /// `None` once the vCPU is dropped; the lock keeps the mapping alive while somebody kicks.
    run: Mutex<Option<NonNull<kvm_run>>>,
    /// The thread that entered the guest last; 0 before the first time.
    thread: AtomicI32,
    /// A kick that the vCPU has not answered yet.
    requested: AtomicBool,
}

// SAFETY: `run` is only used for an atomic store to `immediate_exit`, which KVM allows from any thread, and only while the
// lock proves that the mapping still exists.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Kicker {
    pub(super) fn new(run: NonNull<kvm_run>) -> Kicker {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(install_handler);
        let (run, thread, requested) = (Mutex::new(Some(run)), AtomicI32::new(0), AtomicBool::new(false));
        Kicker(Arc::new(Target { run, thread, requested }))
    }

    /// Before the calling thread enters the guest: whether it was kicked since it came out. Answers the kick.
    pub(super) fn begin(&self) -> bool {
        thread_local! {
            // SAFETY: gettid takes nothing and cannot fail.
            static THREAD: i32 = unsafe { libc::gettid() };
        }
        self.0.thread.store(THREAD.with(|thread| *thread), Ordering::SeqCst);
        self.0.requested.load(Ordering::SeqCst) && {
            self.answer();
            true
        }
    }

    /// The vCPU came out, or is about to be seen as out.
    pub(super) fn answer(&self) {
        self.0.requested.store(false, Ordering::SeqCst);
        if let Some(run) = *self.run() {
            immediate_exit(run).store(0, Ordering::SeqCst);
        }
    }

    pub(super) fn disconnect(&self) {
        *self.run() = None;
    }

    fn run(&self) -> MutexGuard<'_, Option<NonNull<kvm_run>>> {
        self.0.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kick for Kicker {
    /// `immediate_exit` closes the gap between the check and KVM_RUN (KVM API, section 5, `immediate_exit`); the signal
    /// interrupts a guest that is already running.
    fn kick(&self) {
        let Some(run) = *self.run() else { return };
        self.0.requested.store(true, Ordering::SeqCst);
        immediate_exit(run).store(1, Ordering::SeqCst);
        let thread = self.0.thread.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: no memory is passed. If the thread has ended, nothing happens; a new thread of this process that got
            // its number has at most a call interrupted.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }
}

/// The flag in the shared page that makes KVM_RUN return at once.
pub(super) fn immediate_exit<'a>(run: NonNull<kvm_run>) -> &'a AtomicU8 {
    // SAFETY: the caller holds the mapping of `run`; the field is one byte that user space and KVM access atomically, and
    // nobody makes a reference to it by another way.
    unsafe { AtomicU8::from_ptr(&raw mut (*run.as_ptr()).immediate_exit) }
}

fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// KVM_RUN returns EINTR for a signal only if it has a handler; it need not do anything.
fn install_handler() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: a zeroed sigaction is valid, the handler does nothing and so is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        libc::sigaction(signal(), &raw const action, std::ptr::null_mut());
    }
}
