//! The guest's thread: in KVM_RUN, or in the world that answers for it. It runs what a stranger may have written, and
//! handles the rings and frames that this made.

use std::process;

use rustix::ioctl::opcode;
use syscalls::Sysno;

use super::rule::Rule;

/// What the allocator and the printer of backtraces ask for, and do without.
pub(super) const REFUSED: &[(Sysno, i32)] = &[
    // glibc's malloc looks for the number of processors and for the rule of overcommitment, in /sys and /proc; a backtrace
    // reads the program.
    (Sysno::openat, libc::EACCES),
    // A backtrace: where is the program, and what need not be said of its paths?
    (Sysno::readlink, libc::EACCES),
    (Sysno::getcwd, libc::EACCES),
];

/// The calls of the guest's thread.
pub(super) fn allowed() -> Vec<Rule> {
    let mut rules = requests();
    rules.extend(memory());
    rules.extend(
        [
            // Frames: a TAP device is read and written, a frame socket too or as a socket. The bell and stderr.
            Sysno::read,
            Sysno::write,
            Sysno::recvfrom,
            Sysno::sendto,
            // The world waits for a frame, the bell, or the guest's deadline.
            Sysno::poll,
            Sysno::ppoll,
            // The gate, the journal's channel, the throttle: locks and waiting.
            Sysno::futex,
            Sysno::sched_yield,
            Sysno::nanosleep,
            Sysno::clock_nanosleep,
            // A clock that the vDSO does not have.
            Sysno::clock_gettime,
            // Tables with random keys.
            Sysno::getrandom,
            // The end of the virtual machine, or of the network.
            Sysno::close,
            // A kick is a signal: its handler returns; a call that a SIGSTOP interrupted goes on.
            Sysno::rt_sigreturn,
            Sysno::restart_syscall,
            // glibc, for a new heap: how many processors are there?
            Sysno::sched_getaffinity,
            // The end of the thread.
            Sysno::sigaltstack,
            Sysno::rt_sigprocmask,
            Sysno::exit,
            Sysno::exit_group,
            // Who is kicked; and an abort, which is a signal to oneself.
            Sysno::gettid,
            Sysno::getpid,
            // Refused: see above.
            Sysno::readlink,
            Sysno::getcwd,
        ]
        .map(Rule::any),
    );
    rules.extend([
        // An abort.
        Rule::with(Sysno::tgkill, 0, process::id()),
        // Builds with debug assertions look whether a descriptor is open before they close it.
        Rule::with(Sysno::fcntl, 1, libc::F_GETFD as u32),
        // Refused: see above. To open for writing or to create is a violation.
        Rule::masked(Sysno::openat, 2, (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u32, 0),
    ]);
    rules
}

/// The requests to KVM by which a guest runs and its state is read and set.
pub(super) fn requests() -> Vec<Rule> {
    use kvm_bindings::{
        KVMIO, kvm_debugregs, kvm_dirty_log, kvm_mp_state, kvm_msrs, kvm_regs, kvm_sregs,
        kvm_userspace_memory_region, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
    };
    let group = KVMIO as u8;
    [
        // KVM_RUN: first, since it is what the thread does.
        opcode::none(group, 0x80),
        // KVM_GET_ and KVM_SET_ of REGS, SREGS, MSRS, MP_STATE, VCPU_EVENTS, DEBUGREGS, XSAVE, XCRS: checkpoints, images.
        opcode::read::<kvm_regs>(group, 0x81),
        opcode::write::<kvm_regs>(group, 0x82),
        opcode::read::<kvm_sregs>(group, 0x83),
        opcode::write::<kvm_sregs>(group, 0x84),
        opcode::read_write::<kvm_msrs>(group, 0x88),
        opcode::write::<kvm_msrs>(group, 0x89),
        opcode::read::<kvm_mp_state>(group, 0x98),
        opcode::write::<kvm_mp_state>(group, 0x99),
        opcode::read::<kvm_vcpu_events>(group, 0x9f),
        opcode::write::<kvm_vcpu_events>(group, 0xa0),
        opcode::read::<kvm_debugregs>(group, 0xa1),
        opcode::write::<kvm_debugregs>(group, 0xa2),
        opcode::read::<kvm_xsave>(group, 0xa4),
        opcode::write::<kvm_xsave>(group, 0xa5),
        opcode::read::<kvm_xcrs>(group, 0xa6),
        opcode::write::<kvm_xcrs>(group, 0xa7),
        // KVM_GET_DIRTY_LOG, and KVM_SET_USER_MEMORY_REGION, by which the log is turned on: which pages has the guest written?
        opcode::write::<kvm_dirty_log>(group, 0x42),
        opcode::write::<kvm_userspace_memory_region>(group, 0x46),
    ]
    .map(|request| Rule::with(Sysno::ioctl, 1, request))
    .into()
}

/// Memory, none of it to be executed.
pub(super) fn memory() -> Vec<Rule> {
    let data = |call| Rule::masked(call, 2, libc::PROT_EXEC as u32, 0);
    vec![
        // Heaps, buffers, stacks.
        data(Sysno::mmap),
        data(Sysno::mprotect),
        Rule::any(Sysno::munmap),
        Rule::any(Sysno::mremap),
        Rule::any(Sysno::madvise),
        Rule::any(Sysno::brk),
    ]
}
