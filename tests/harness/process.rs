//! Programs that run beside a test, and programs that run to their end.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use echovisor_tools::lab::{cpu_time, thread_time};
use rustix::process::{Pid, Signal, kill_process};

use crate::{LIMIT, Namespace, Scene, program, wait_for};

/// A program in the background. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in `namespace`; what it says goes to a log that is named after it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(scene: &Scene, name: &str, namespace: &Namespace, command: &mut Command) -> Process {
        let name = scene.unique(name);
        let log = scene.path(&format!("{name}.log"));
        let file = File::create(&log).expect("a log");
        command.stdin(Stdio::piped()).stdout(file.try_clone().expect("a log")).stderr(file);
        let child =
            namespace.enter(|| command.spawn()).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { name, child, log }
    }

    /// Its name in this scene.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number in this process namespace.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its standard input; dropping that is its end of file.
    ///
    /// # Panics
    /// If it was taken before.
    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("the input is taken once")
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// If the host has lost it.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// If it does not end within [`LIMIT`].
    pub fn finish(mut self) -> Finished {
        let what = format!("the end of {}", self.name);
        let status = wait_for(&what, || self.ended().ok_or_else(|| tail_line(&self.log)));
        Finished { command: self.name.clone(), status, stdout: self.said(), stderr: String::new() }
    }

    /// The time that processors have spent on it so far.
    ///
    /// # Panics
    /// If the host has lost it.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.child.id()).expect("a child of this process")
    }

    /// The time that processors have spent on its threads of this name so far.
    ///
    /// # Panics
    /// If the host has lost it.
    #[must_use]
    pub fn thread_time(&self, name: &str) -> Duration {
        thread_time(self.child.id(), name).expect("a child of this process")
    }

    /// Stops it as a host that falls asleep would: without a word, but with all that it has.
    ///
    /// # Panics
    /// If the host has lost it.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Process::pause`].
    ///
    /// # Panics
    /// If the host has lost it.
    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to end, and to clean up behind it.
    ///
    /// # Panics
    /// If the host has lost it.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child of this process");
    }

    /// Kills it as a lost host would: without a word.
    ///
    /// # Panics
    /// If the host has lost it.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of this process");
        self.child.wait().expect("a child of this process");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().last().unwrap_or("it says nothing").to_owned()
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    command: String,
    status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Namespace {
    /// Runs a program to its end. One that has not ended after some minutes is killed: `redis-benchmark` tries for ever to
    /// reach a server that is gone.
    ///
    /// # Panics
    /// If it is not installed.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        name: impl AsRef<Path>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Finished {
        let mut command = Command::new(program("timeout"));
        command.args(["--signal=KILL", &(3 * LIMIT.as_secs()).to_string()]);
        command.arg(program(name)).args(arguments).stdin(Stdio::null());
        let output = self.enter(|| command.output()).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Finished {
            command: format!("{command:?}"),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    /// Its exit code; none if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether it ended well.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// What it printed.
    ///
    /// # Panics
    /// If it failed.
    #[must_use]
    pub fn output(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finished { command, status, stdout, stderr } = self;
        write!(f, "{command}\nended with {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}
