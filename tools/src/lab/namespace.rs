//! A network namespace.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::Command,
    thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{LabError, program};

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
    /// nobody asked for.
    ///
    /// # Errors
    /// If it cannot be made: outside of an [enclosure](super::enclosed) that needs root.
    pub fn new() -> Result<Namespace, LabError> {
        let make = || -> io::Result<File> {
            // SAFETY: only this thread's view of the network changes; no descriptor and no memory is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net")
        };
        let file = in_thread(make).map_err(|error| LabError::Namespace("made", error))?;
        let namespace = Namespace { file };
        namespace.ip("link set lo up")?;
        namespace.enter(|| {
            for scope in ["all", "default"] {
                // A kernel without IPv6 has no such file.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
        })?;
        Ok(namespace)
    }

    /// The same namespace, for somebody else.
    ///
    /// # Errors
    /// If the host has no file descriptor left for it.
    pub fn try_clone(&self) -> Result<Namespace, LabError> {
        let file = self.file.try_clone().map_err(|error| LabError::Namespace("shared", error))?;
        Ok(Namespace { file })
    }

    /// Does something in this namespace, and panics if that does.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let entered = in_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(act())
        });
        entered.map_err(|error: rustix::io::Errno| LabError::Namespace("entered", error.into()))
    }

    /// Has `command` start its process in this namespace, from whichever thread.
    ///
    /// # Errors
    /// If the host has no file descriptor left for it.
    pub fn house(&self, command: &mut Command) -> Result<(), LabError> {
        let Namespace { file } = self.try_clone()?;
        // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
            });
        }
        Ok(())
    }

    /// Runs `ip` in this namespace, with arguments that are separated by blanks.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn ip(&self, arguments: &str) -> Result<(), LabError> {
        self.configure("ip", arguments)
    }

    /// Lets no more than `rate` (such as `100mbit`) leave through `interface`.
    ///
    /// # Errors
    /// If `tc` fails.
    pub fn shape(&self, interface: &str, rate: &str) -> Result<(), LabError> {
        let discipline = format!("tbf rate {rate} burst 64k latency 50ms");
        self.configure("tc", &format!("qdisc replace dev {interface} root {discipline}"))
    }

    /// Makes what leaves through `interface` late, lost or out of order, by netem's own options, such as `delay 5ms loss 1%`.
    ///
    /// # Errors
    /// If `tc` fails: not every kernel has netem.
    pub fn impair(&self, interface: &str, options: &str) -> Result<(), LabError> {
        self.configure("tc", &format!("qdisc replace dev {interface} root netem {options}"))
    }

    fn configure(&self, name: &str, arguments: &str) -> Result<(), LabError> {
        let mut command = Command::new(program(name)?);
        command.args(arguments.split(' '));
        let output = self.enter(|| command.output())?;
        let output = output.map_err(|source| LabError::Start { program: name.to_owned(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LabError::Command { command: format!("{name} {arguments}"), status: output.status, said })
    }

    /// What has gone through an interface.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn traffic(&self, interface: &str) -> Result<Traffic, LabError> {
        let table = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let traffic = table.ok().and_then(|table| Traffic::of(interface, &table));
        traffic.ok_or_else(|| LabError::Figures(format!("/proc/net/dev, of {interface},")))
    }

    /// The name by which `ip` finds this namespace, for the other end of a veth pair.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub fn path(&self) -> Result<PathBuf, LabError> {
        // This process in the eyes of whoever mounted /proc: an enclosure has a process namespace of its own, but keeps the mount.
        let process = fs::read_link("/proc/self").map_err(|error| LabError::Namespace("named", error))?;
        Ok(PathBuf::from("/proc").join(process).join("fd").join(self.file.as_raw_fd().to_string()))
    }
}

/// Bytes that went through an interface, Ethernet headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that came in.
    pub received: u64,
    /// Bytes that went out.
    pub sent: u64,
}

impl Traffic {
    /// Reads it from the kernel's table of all interfaces.
    fn of(interface: &str, table: &str) -> Option<Traffic> {
        let row = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
        let mut numbers = row.split_whitespace().map(str::parse);
        let received = numbers.next()?.ok()?;
        let sent = numbers.nth(7)?.ok()?;
        Some(Traffic { received, sent })
    }

    /// Both directions.
    #[must_use]
    pub fn total(self) -> u64 {
        self.received + self.sent
    }
}

impl std::ops::Sub for Traffic {
    type Output = Traffic;

    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic { received: self.received - earlier.received, sent: self.sent - earlier.sent }
    }
}

fn in_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_interface() {
        let table = "Inter-|   Receive |  Transmit\n face |bytes packets errs\n\
                     link0:    1  2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n    lo: 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36\n";
        assert_eq!(Traffic::of("link0", table), Some(Traffic { received: 1, sent: 9 }));
        assert_eq!(Traffic::of("lo", table), Some(Traffic { received: 21, sent: 29 }));
        for unknown in ["link", "eth0", ""] {
            assert_eq!(Traffic::of(unknown, table), None, "{unknown}");
        }
    }
}
