//! A node as a child process, which is gone at the latest when this process is.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::{
    control::{self, Request, Status},
    failure::{Exit, Failure},
    output,
};

/// The hint where only a node can know more.
pub(crate) const SAID_ABOVE: &str =
    "what the nodes said last stands above; RUST_LOG=debug makes them say more";

/// Lines that are shown of what a node said last.
const LAST_WORDS: usize = 12;

/// How often a node is asked whether it is ready.
const PERIOD: Duration = Duration::from_millis(10);

/// How long a node may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running node, or a killed one.
pub(crate) struct Node {
    name: &'static str,
    child: Child,
    control: PathBuf,
    stderr: PathBuf,
    killed: bool,
}

impl Node {
    /// Starts `command NAME ARGUMENTS... --control ...`; its files are in `folder`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        mut command: Command,
        name: &'static str,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
    ) -> Result<Node, Failure> {
        let control = folder.join(format!("{name}.control"));
        let stderr = folder.join(format!("{name}.stderr"));
        let spawn = || -> io::Result<Child> {
            command.arg(name).args(arguments).arg("--control").arg(&control);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr)?);
            // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
            unsafe {
                // Were this process killed, nobody else would end its nodes.
                command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
            }
            command.spawn()
        };
        let child = spawn().map_err(|error| {
            let hint = "see whether the limit of processes (`ulimit -u`) or the disk of TMPDIR is exhausted";
            Failure::new(format!("cannot start the {name}"), hint).because(error)
        })?;
        Ok(Node { name, child, control, stderr, killed: false })
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the node says of itself, if it answers.
    pub(crate) async fn status(&self) -> Option<Status> {
        control::status(&self.control).await.ok()
    }

    /// Waits until the node's status is such. If it has a peer, that must not end meanwhile.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        mut peer: Option<&mut Node>,
        ready: impl Fn(&Status) -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.check()?;
            if let Some(peer) = &mut peer {
                peer.check()?;
            }
            if self.status().await.is_some_and(|status| ready(&status)) {
                return Ok(());
            }
            tokio::time::sleep(PERIOD).await;
        }
        let what = format!("the {} is not {what} after {} s", self.name, PATIENCE.as_secs());
        Err(Failure::new(what, SAID_ABOVE))
    }

    /// Fails if the node has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        if self.killed {
            return Ok(());
        }
        match self.child.try_wait() {
            Ok(Some(status)) => {
                let what = format!("the {} (process {}) ended by itself: {status}", self.name, self.pid());
                let unfit = status.code() == Some(Exit::Unfit as i32);
                let exit = if unfit { Exit::Unfit } else { Exit::Failed };
                let hint = "what it said last stands above; `echovisor check-host` says what the host lacks";
                Err(Failure::new(what, hint).with_exit(exit))
            }
            _ => Ok(()),
        }
    }

    /// Has the node end as by `echovisor stop`, and waits until it has.
    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        control::ask(&self.control, &Request::Stop).await?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    let what = format!("the {} was asked to stop, and ended otherwise: {status}", self.name);
                    return Err(Failure::new(what, SAID_ABOVE));
                }
                _ => tokio::time::sleep(PERIOD).await,
            }
        }
        let what = format!("the {} has not stopped after {} s", self.name, PATIENCE.as_secs());
        Err(Failure::new(what, SAID_ABOVE))
    }

    /// kill -9, after a while; gives the moment of it. A thread of its own does it, so that the moment has nothing to do
    /// with what this one is just doing.
    pub(crate) fn kill_after(&mut self, delay: Duration) -> JoinHandle<io::Result<Instant>> {
        self.killed = true;
        // The process is waited for only when this is dropped, so until then the number is nobody else's.
        let pid = Pid::from_child(&self.child);
        thread::spawn(move || {
            thread::sleep(delay);
            let at = Instant::now();
            kill_process(pid, Signal::KILL)?;
            Ok(at)
        })
    }

    /// Shows what the node said last, so that a failure explains itself.
    pub(crate) fn tell_last_words(&self) {
        let said = fs::read(&self.stderr).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
            output::say(format_args!("{:>9} | {line}", self.name));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
