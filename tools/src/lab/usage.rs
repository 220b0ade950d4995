//! What a process uses of its host.

use std::{fs, io, path::PathBuf, process, time::Duration};

/// The time that processors have spent on a child process so far.
///
/// # Errors
/// If there is no such process.
pub fn cpu_time(process: u32) -> io::Result<Duration> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: it writes through a pointer to a local of the type that it expects.
    match unsafe { libc::clock_getcpuclockid(process.cast_signed(), &raw mut clock) } {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    // SAFETY: as above.
    match unsafe { libc::clock_gettime(clock, &raw mut time) } {
        0 => Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The time that processors have spent so far on the threads of a child process that have this name.
///
/// # Errors
/// If there is no such process, or /proc does not tell.
pub fn thread_time(process: u32, name: &str) -> io::Result<Duration> {
    let tasks = fs::read_dir(folder(process)?.join("task"))?.flatten();
    let named = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    let times = named.map(|task| {
        let times = fs::read_to_string(task.path().join("schedstat"))?;
        let running = times.split_whitespace().next().and_then(|text| text.parse().ok());
        running.map(Duration::from_nanos).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    });
    times.sum()
}

/// Bytes of memory that a child process has resident.
///
/// # Errors
/// If there is no such process, or /proc does not tell.
pub fn resident(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(folder(process)?.join("status"))?;
    let resident = field(&status, "VmRSS:");
    let kilobytes = resident.and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map(|number| number << 10).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The folder in /proc of a child process.
fn folder(process: u32) -> io::Result<PathBuf> {
    let mut processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let child = processes.find(|folder| {
        fs::read_to_string(folder.join("status")).is_ok_and(|status| is_child(&status, process))
    });
    child.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Whether this is the status of that child. /proc may be the mount of another process namespace, in which the child and this process
/// have other numbers; the last number of `NSpid` is that of its own.
fn is_child(status: &str, process: u32) -> bool {
    let numbers = |name| field(status, name).into_iter().flat_map(str::split_whitespace);
    let own =
        fs::read_link("/proc/self").map_or(process::id().to_string(), |link| link.display().to_string());
    numbers("NSpid:").next_back().is_some_and(|number| number == process.to_string())
        && numbers("PPid:").next().is_some_and(|number| number == own)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_takes_time_and_memory() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat starts");
        cpu_time(child.id()).expect("a child of this process");
        // Between fork and exec it already is a process, with this one's memory.
        assert!(resident(child.id()).expect("a child of this process") > 0);
        thread_time(child.id(), "cat").expect("a child of this process");
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!(cpu_time(child.id()).is_err() && resident(child.id()).is_err());
        assert!(thread_time(child.id(), "cat").is_err());
    }
}
