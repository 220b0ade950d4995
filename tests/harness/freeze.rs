//! One thread of a process stands still while the others go on.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use crate::{Process, wait_for};

/// A thread that stands still until this value is dropped.
#[derive(Debug)]
pub struct Frozen {
    /// Dropped first: that ends the tracing thread, and with it the tracing.
    held: Option<mpsc::Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Process {
    /// Stops the thread of this name, and no other, as a debugger does. Waits until there is exactly one.
    ///
    /// # Panics
    /// If there is none, or it may not be traced.
    #[must_use]
    pub fn freeze_thread(&self, name: &str) -> Frozen {
        let thread =
            wait_for(&format!("one thread `{name}` of {}", self.name()), || match self.threads(name)[..] {
                [thread] => Ok(thread),
                ref threads => Err(format!("{threads:?}")),
            });
        let (held, release) = mpsc::channel();
        let (stopped, is_stopped) = mpsc::channel();
        // Only the thread that began to trace may go on doing so, and the kernel ends the tracing when it ends.
        let tracer = thread::spawn(move || {
            ptrace::seize(thread, ptrace::Options::empty()).expect("a thread that may be traced");
            ptrace::interrupt(thread).expect("a traced thread");
            waitpid(thread, Some(WaitPidFlag::__WALL)).expect("a stopped thread");
            stopped.send(()).expect("somebody waits");
            // An error is what ends it.
            let _ = release.recv();
        });
        is_stopped.recv().expect("the thread stops");
        Frozen { held: Some(held), tracer: Some(tracer) }
    }

    /// The threads of this name, by their numbers in this process namespace.
    fn threads(&self, name: &str) -> Vec<Pid> {
        let Some(process) = self.folder() else { return Vec::new() };
        let tasks = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        let named = tasks
            .map(|task| task.path())
            .filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name));
        named.filter_map(|task| number(&task)).map(Pid::from_raw).collect()
    }

    /// Its folder in /proc, where another number stands if /proc was mounted outside of this process namespace.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
        let ours = namespace(Path::new("/proc/self"));
        let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
        let id = i32::try_from(self.id()).ok();
        processes.into_iter().find(|process| number(process) == id && namespace(process) == ours)
    }
}

/// The number of a process or thread in its own namespace.
fn number(task: &Path) -> Option<i32> {
    let status = fs::read_to_string(task.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.held = None;
        if let Some(tracer) = self.tracer.take() {
            // Whether it panicked was seen when it began.
            let _ = tracer.join();
        }
    }
}
