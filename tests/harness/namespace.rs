//! A network namespace.

use std::{
    fs::{self, File},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    process, thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::program;

/// A network of its own: interfaces, addresses, ports. It lives as long as this value or a process in it.
///
/// A thread is in one network namespace, and what it makes (a child process, a socket) stays in that one wherever it is
/// used. So whatever has to happen in a namespace happens in a thread that enters it first and ends after it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new namespace, with the loopback interface up and without IPv6, whose neighbour discovery would make traffic that
    /// no test asked for.
    ///
    /// # Panics
    /// If it cannot be made: outside of [`scenario`](crate::scenario) that needs root.
    #[must_use]
    pub fn new() -> Namespace {
        let file = in_thread(|| {
            // SAFETY: only this thread's view of the network changes; no descriptor and no memory is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("no new network namespace");
            File::open("/proc/thread-self/ns/net").expect("the namespace has no file")
        });
        let namespace = Namespace { file };
        namespace.ip("link set lo up");
        namespace.enter(|| {
            for scope in ["all", "default"] {
                // A kernel without IPv6 has no such file.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
        });
        namespace
    }

    /// Does something in this namespace.
    ///
    /// # Panics
    /// If it panics, or the namespace cannot be entered.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("the namespace cannot be entered");
            act()
        })
    }

    /// Runs `ip` in this namespace, with arguments that are separated by blanks.
    ///
    /// # Panics
    /// If `ip` fails.
    pub fn ip(&self, arguments: &str) {
        self.configure("ip", arguments);
    }

    /// Lets no more than `rate` (such as `100mbit`) leave through `interface`.
    ///
    /// # Panics
    /// If `tc` fails.
    pub fn shape(&self, interface: &str, rate: &str) {
        self.configure(
            "tc",
            &format!("qdisc replace dev {interface} root tbf rate {rate} burst 64k latency 50ms"),
        );
    }

    /// Makes what leaves through `interface` late, lost or out of order, by netem's own options, such as `delay 5ms loss 1%`.
    ///
    /// # Panics
    /// If `tc` fails: not every kernel has netem.
    pub fn impair(&self, interface: &str, options: &str) {
        self.configure("tc", &format!("qdisc replace dev {interface} root netem {options}"));
    }

    fn configure(&self, name: &str, arguments: &str) {
        let mut command = process::Command::new(program(name));
        command.args(arguments.split(' '));
        let output = self.enter(|| command.output()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{name} {arguments}` failed: {said}");
    }

    /// What has gone through an interface.
    ///
    /// # Panics
    /// If there is no such interface.
    #[must_use]
    pub fn traffic(&self, interface: &str) -> Traffic {
        let table =
            self.enter(|| fs::read_to_string("/proc/thread-self/net/dev")).expect("no interface counters");
        let counters = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let counters = counters.unwrap_or_else(|| panic!("no interface `{interface}` in:\n{table}"));
        let numbers: Vec<u64> = counters.split_whitespace().map(|n| n.parse().expect("a counter")).collect();
        Traffic { received: numbers[0], sent: numbers[8] }
    }

    /// The name by which `ip` finds this namespace, for the other end of a veth pair.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process_id(), self.file.as_raw_fd()).into()
    }
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace::new()
    }
}

/// Bytes that went through an interface, Ethernet headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that came in.
    pub received: u64,
    /// Bytes that went out.
    pub sent: u64,
}

impl std::ops::Sub for Traffic {
    type Output = Traffic;

    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic { received: self.received - earlier.received, sent: self.sent - earlier.sent }
    }
}

/// This process in the eyes of whoever mounted /proc: a scenario has a process namespace of its own, but keeps the mount.
fn process_id() -> String {
    let link = fs::read_link("/proc/self").expect("/proc is mounted");
    link.to_string_lossy().into_owned()
}

fn in_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
