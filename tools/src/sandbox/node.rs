//! Every thread of a node but the guest's: the one with the link, the control socket and the timers, which is the first to
//! see what a stranger sends; and those for which it has no time: the log's disk, the arbiter, the compression of images,
//! the console. They come and go, and inherit from each other, so one list holds for all of them.

use std::process;

use rustix::ioctl::opcode;
use syscalls::Sysno;

use super::{guest, rule::Rule};

/// Flags of clone(2) by which a thread would get namespaces of its own.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// The last signal that glibc keeps to itself.
const SIGSETXID: u32 = 33;

/// What the C library can do without.
pub(super) const REFUSED: &[(Sysno, i32)] = &[
    // Its flags lie in memory, where no filter sees them. glibc takes clone(2) where there is no clone3(2).
    (Sysno::clone3, libc::ENOSYS),
];

/// The calls of a node.
pub(super) fn allowed() -> Vec<Rule> {
    let mut rules = guest::requests();
    rules.extend(machines());
    rules.extend(memory());
    rules.extend(threads());
    rules.extend(sockets());
    rules.extend(files());
    rules.extend(
        [
            // Timers and locks.
            Sysno::futex,
            Sysno::sched_yield,
            Sysno::nanosleep,
            Sysno::clock_nanosleep,
            Sysno::clock_gettime,
            // Identities, TLS, tables with random keys.
            Sysno::getrandom,
            // Signals: the handlers of stop and kick return; a call that a SIGSTOP interrupted goes on.
            Sysno::rt_sigreturn,
            Sysno::restart_syscall,
            Sysno::exit_group,
            // The backtrace of a panic: where is the program, and what need not be said of its paths?
            Sysno::readlink,
            Sysno::getcwd,
        ]
        .map(Rule::any),
    );
    rules
}

/// What makes a virtual machine: a secondary's, when its primary's state has come, and a replay's.
fn machines() -> Vec<Rule> {
    use kvm_bindings::{KVMIO, kvm_cpuid2, kvm_enable_cap, kvm_msr_filter};
    let group = KVMIO as u8;
    let requests = [
        // KVM_GET_API_VERSION, KVM_CHECK_EXTENSION: is it the KVM that the machine needs?
        opcode::none(group, 0x00),
        opcode::none(group, 0x03),
        // KVM_CREATE_VM, KVM_GET_VCPU_MMAP_SIZE, KVM_CREATE_VCPU, KVM_SET_TSS_ADDR.
        opcode::none(group, 0x01),
        opcode::none(group, 0x04),
        opcode::none(group, 0x41),
        opcode::none(group, 0x47),
        // KVM_ENABLE_CAP, KVM_X86_SET_MSR_FILTER, KVM_SET_CPUID2: what the guest may see of the host.
        opcode::write::<kvm_enable_cap>(group, 0xa3),
        opcode::write::<kvm_msr_filter>(group, 0xc6),
        opcode::write::<kvm_cpuid2>(group, 0x90),
    ];
    let mut rules: Vec<_> =
        requests.into_iter().map(|request| Rule::with(Sysno::ioctl, 1, request)).collect();
    // The handler of the kick.
    rules.push(Rule::with(Sysno::rt_sigaction, 0, libc::SIGRTMIN() as u32));
    rules
}

/// As the guest's thread; and code, which the name service of the C library may have to load.
fn memory() -> Vec<Rule> {
    let mut rules = guest::memory();
    let both = (libc::PROT_WRITE | libc::PROT_EXEC) as u32;
    rules.push(Rule::masked(Sysno::mmap, 2, both, libc::PROT_EXEC as u32));
    rules
}

/// Starting and ending threads. No process is ever started.
fn threads() -> Vec<Rule> {
    let thread = libc::CLONE_VM | libc::CLONE_THREAD;
    let mut rules = vec![
        Rule::masked(Sysno::clone, 0, (thread | NAMESPACES) as u32, thread as u32),
        // Refused: see above.
        Rule::any(Sysno::clone3),
        // Before the first one glibc takes the signal by which it changes the user of all threads.
        Rule::with(Sysno::rt_sigaction, 0, SIGSETXID),
        // A thread's name; and the guest's thread narrows its filter.
        Rule::with(Sysno::prctl, 0, libc::PR_SET_NAME as u32),
        Rule::with(Sysno::prctl, 0, libc::PR_SET_NO_NEW_PRIVS as u32),
        Rule::with(Sysno::seccomp, 0, libc::SECCOMP_SET_MODE_FILTER),
        // Kicks, and an abort.
        Rule::with(Sysno::tgkill, 0, process::id()),
        // How large is the stack? Limits are read, not set: there is no new one. Its address has 64 bits, of which the lower
        // are zero in none that the C library would pass.
        Rule::with(Sysno::prlimit64, 2, 0),
    ];
    rules.extend(
        [
            Sysno::set_robust_list,
            Sysno::rseq,
            Sysno::sigaltstack,
            Sysno::rt_sigprocmask,
            Sysno::sched_getaffinity,
            Sysno::gettid,
            Sysno::getpid,
            Sysno::exit,
        ]
        .map(Rule::any),
    );
    rules
}

/// The link, the control socket, the frame socket, and looking up the peer's name.
fn sockets() -> Vec<Rule> {
    let mut rules: Vec<_> = [
        // What happens first?
        Sysno::epoll_create1,
        Sysno::epoll_ctl,
        Sysno::epoll_wait,
        Sysno::epoll_pwait,
        Sysno::poll,
        Sysno::ppoll,
        // The guest's bell, made anew at a takeover.
        Sysno::eventfd2,
        // Peers come and are dialled; listening sockets are older than the filter.
        Sysno::accept4,
        Sysno::connect,
        Sysno::shutdown,
        Sysno::getsockopt,
        Sysno::setsockopt,
        Sysno::getsockname,
        Sysno::getpeername,
        // Messages, and the bytes of files.
        Sysno::read,
        Sysno::readv,
        Sysno::write,
        Sysno::writev,
        Sysno::recvfrom,
        Sysno::recvmsg,
        Sysno::sendto,
        Sysno::sendmsg,
        Sysno::close,
        // The name service: a socket to the kernel that lists addresses is bound, questions are sent together, the host has
        // a name.
        Sysno::bind,
        Sysno::sendmmsg,
        Sysno::uname,
    ]
    .map(Rule::any)
    .into();
    // Links; frame sockets and the name service's cache; the name service asking the network, and the kernel for addresses.
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
        rules.push(Rule::with(Sysno::socket, 0, family as u32).and(1, 0xf, libc::SOCK_STREAM as u32));
        rules.push(Rule::with(Sysno::socket, 0, family as u32).and(1, 0xf, libc::SOCK_DGRAM as u32));
    }
    let route = libc::NETLINK_ROUTE as u32;
    rules.push(Rule::with(Sysno::socket, 0, libc::AF_NETLINK as u32).and(2, u32::MAX, route));
    // Non-blocking, close-on-exec, a second descriptor; how much is there to read; is it a terminal?
    for command in [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC] {
        rules.push(Rule::with(Sysno::fcntl, 1, command as u32));
    }
    for request in [libc::FIONBIO, libc::FIONREAD, libc::TCGETS] {
        rules.push(Rule::with(Sysno::ioctl, 1, request as u32));
    }
    rules
}

/// The log and its index, the arbiter's record, images; at the end, sockets that are removed. Which files these are the
/// command line says, never a peer.
fn files() -> Vec<Rule> {
    [
        Sysno::openat,
        Sysno::newfstatat,
        Sysno::fstat,
        Sysno::statx,
        Sysno::lseek,
        Sysno::pread64,
        Sysno::pwrite64,
        Sysno::ftruncate,
        Sysno::fallocate,
        Sysno::fsync,
        Sysno::fdatasync,
        Sysno::sync_file_range,
        Sysno::flock,
        Sysno::rename,
        Sysno::unlink,
        Sysno::mkdir,
        Sysno::getdents64,
        Sysno::access,
        // How large may the index's cache be? sled asks for the host's memory where no control group limits it.
        Sysno::sysinfo,
    ]
    .map(Rule::any)
    .into()
}
