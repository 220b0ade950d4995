//! The filters are in force, and what they forbid is told. A filter can't be taken off, so each test is a process of its own.

use std::{
    env, fs,
    fs::File,
    io,
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    process::{Command, Output, exit},
    thread,
};

use echovisor_tools::sandbox::{confine, confine_guest};
use rustix::net::{AddressFamily, SocketType, socket};

/// Set in the process that is confined.
const CHILD: &str = "ECHOVISOR_SANDBOX_TEST";

/// Runs `body` in a process of its own, which is this program again, with the one test `name`.
fn apart(name: &str, body: fn()) -> Output {
    if env::var_os(CHILD).is_some() {
        body();
        exit(0);
    }
    let program = env::current_exe().expect("a path");
    Command::new(program).args(["--exact", name, "--nocapture"]).env(CHILD, "").output().expect("a process")
}

fn succeeds(name: &str, body: fn()) {
    let output = apart(name, body);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// The process dies of SIGSYS. What it said: nothing, where the C library holds signals back around the call.
fn dies(name: &str, body: fn()) -> String {
    let output = apart(name, body);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{}: {said}", output.status);
    said
}

/// The process dies of SIGSYS, and says who made which call.
fn violates(name: &str, body: fn(), thread: &str, call: &str) {
    let said = dies(name, body);
    let expected = format!("error: the {thread} made the system call {call} (");
    assert!(said.contains(&expected) && said.contains("\nhint: "), "{said}");
}

/// Runs `body` on a thread that is confined as the guest's.
fn as_guest(body: fn()) {
    confine(false).expect("a kernel with seccomp");
    let guest = thread::spawn(move || {
        confine_guest().expect("a kernel with seccomp");
        body();
    });
    guest.join().expect("it ends well");
}

fn filters_of_this_thread() -> usize {
    let status = fs::read_to_string("/proc/thread-self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    line.expect("a kernel that counts filters").trim().parse().expect("a number")
}

#[test]
fn a_node_does_what_it_must() {
    succeeds("a_node_does_what_it_must", || {
        confine(false).expect("a kernel with seccomp");
        let file = env::temp_dir().join(format!("echovisor-sandbox-{}", std::process::id()));
        fs::write(&file, "x").expect("files are written");
        fs::remove_file(&file).expect("and removed");
        // Resolves a name, as for a peer that is given by one.
        let _ = std::net::ToSocketAddrs::to_socket_addrs("localhost:7000").expect("an address");
        socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    });
}

#[test]
fn a_call_on_no_list_ends_the_process() {
    let body = || {
        confine(false).expect("a kernel with seccomp");
        let _ = rustix::process::chdir("/");
    };
    violates("a_call_on_no_list_ends_the_process", body, "node", "chdir");
}

#[test]
fn an_argument_on_no_list_ends_the_process() {
    let body = || {
        confine(false).expect("a kernel with seccomp");
        let _ = socket(AddressFamily::PACKET, SocketType::RAW, None);
    };
    violates("an_argument_on_no_list_ends_the_process", body, "node", "socket");
}

#[test]
fn no_process_is_started() {
    let body = || {
        confine(false).expect("a kernel with seccomp");
        let _ = Command::new("true").status();
    };
    dies("no_process_is_started", body);
}

#[test]
fn a_thread_that_comes_later_is_confined() {
    let body = || {
        confine(false).expect("a kernel with seccomp");
        let filters = filters_of_this_thread();
        assert!(filters > 0);
        let later = thread::spawn(filters_of_this_thread).join().expect("it ends well");
        assert_eq!(later, filters);
        let _ = thread::spawn(|| rustix::process::chdir("/")).join();
    };
    violates("a_thread_that_comes_later_is_confined", body, "node", "chdir");
}

#[test]
fn a_thread_that_was_there_is_confined() {
    let body = || {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let early = thread::spawn(move || {
            let _ = gone.recv();
            let _ = rustix::process::chdir("/");
        });
        confine(false).expect("a kernel with seccomp");
        drop(go);
        let _ = early.join();
    };
    violates("a_thread_that_was_there_is_confined", body, "node", "chdir");
}

#[test]
fn the_guests_thread_opens_no_socket() {
    let body = || as_guest(|| drop(TcpListener::bind("127.0.0.1:0")));
    violates("the_guests_thread_opens_no_socket", body, "guest's thread", "socket");
}

#[test]
fn the_guests_thread_creates_no_file() {
    let body = || as_guest(|| drop(File::create("/dev/null")));
    violates("the_guests_thread_creates_no_file", body, "guest's thread", "openat");
}

#[test]
fn the_guests_thread_starts_no_thread() {
    dies("the_guests_thread_starts_no_thread", || as_guest(|| drop(thread::spawn(|| {}))));
}

/// The C library asks for files where nobody would expect it, and can do without: no reason to die.
#[test]
fn the_guests_thread_reads_no_file() {
    succeeds("the_guests_thread_reads_no_file", || {
        as_guest(|| {
            let error = File::open("/proc/self/status").expect_err("it is refused");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        });
    });
}

#[test]
fn without_filters_nothing_is_forbidden() {
    succeeds("without_filters_nothing_is_forbidden", || {
        confine(true).expect("nothing to do");
        confine_guest().expect("nothing to do");
        assert_eq!(filters_of_this_thread(), 0);
        rustix::process::chdir("/").expect("it is allowed");
    });
}
