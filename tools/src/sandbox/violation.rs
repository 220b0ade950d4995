//! What happens when a thread makes a call that its filter forbids: its name on stderr, then death by SIGSYS.

use std::{cell::Cell, io::Write};

use syscalls::Sysno;

thread_local! {
    /// What this thread is called in the report; constant, since a signal handler reads it.
    static THREAD: Cell<&'static str> = const { Cell::new("node") };
}

/// What the calling thread is called if it violates its filter.
pub(super) fn thread_is(name: &'static str) {
    THREAD.set(name);
}

/// Has violations reported.
pub(super) fn report() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = violated;
    // SAFETY: a zeroed sigaction is valid, and the handler does only what is safe in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut());
    }
}

/// The kernel's answer to a forbidden call, on the thread that made it. Allocates nothing and takes no lock.
extern "C" fn violated(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // siginfo_t of SIGSYS (sigaction(2)): signo, errno, code, padding, call_addr, syscall, arch.
    // SAFETY: the kernel passes a siginfo_t, which is longer than this, and its fields here are plain numbers.
    let number = unsafe { info.cast::<libc::c_int>().add(6).read() };
    let name = usize::try_from(number).ok().and_then(Sysno::new).map_or("unknown", |call| call.name());
    let mut text = [0; 256];
    let mut rest = &mut text[..];
    // It fits, and if it did not its beginning would do.
    let _ = write!(
        rest,
        "error: the {} made the system call {name} ({number}), which its seccomp filter forbids\n\
         hint: if it did so by itself, and nobody made it, report it; --no-seccomp runs without filters\n",
        THREAD.get()
    );
    let left = rest.len();
    let said = &text[..text.len() - left];
    // SAFETY: the bytes are valid for their length. To repeat a forbidden call is not to make it: SIGSYS is blocked in its
    // own handler, and so the kernel ends the process by it.
    unsafe {
        libc::write(libc::STDERR_FILENO, said.as_ptr().cast(), said.len());
        libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0);
        libc::_exit(128 + libc::SIGSYS);
    }
}
