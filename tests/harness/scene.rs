//! A test's own world: its namespaces, and its folder.

use std::{
    any,
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead, BufReader},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use echovisor_tools::lab::enclosed;
use fastrand::Rng;

use crate::{echovisor, namespace::must, program, program::ECHOVISOR, size};

/// Set in the process that is inside of the namespaces.
const INSIDE: &str = "ECHOVISOR_TESTS_INSIDE";

/// What the inner process says first.
const BEGUN: &str = "the scenario begins";

/// How much of each log a failure shows.
const TAIL_LINES: usize = 25;

/// Where a test keeps its files and its processes leave their logs.
#[derive(Debug)]
pub struct Scene {
    folder: PathBuf,
    names: Mutex<BTreeSet<String>>,
}

/// Runs a test in new namespaces: network, mounts, processes, and a user namespace where that is what it takes.
///
/// The test's own process can't move into them, for it has other threads and other tests. So this starts the test binary
/// again, for this one test, and there runs `body`. When that process is gone the kernel ends all that it has started.
/// If `body` panics, the folder is kept, and the ends of all logs are shown.
///
/// # Panics
/// If `body` does, or if this host lets nobody make namespaces.
pub fn scenario<F: FnOnce(&Scene)>(body: F) {
    if env::var_os(INSIDE).is_some() { inside(body) } else { outside(test_name::<F>()) }
}

/// The test that is written around the closure `F`, without its crate: `libtest` knows it by this name.
fn test_name<F>() -> &'static str {
    let path = any::type_name::<F>().trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, test)| test)
}

fn outside(test: &str) {
    // A scenario has several busy processes; two at a time would only make each other slow.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let (output, writer) = io::pipe().expect("a pipe");
    let mut command = must(enclosed());
    command
        .arg(env::current_exe().expect("this test has a file"))
        .args(["--exact", test, "--include-ignored", "--nocapture", "--quiet"])
        .env(INSIDE, test)
        .env(ECHOVISOR, echovisor())
        .stdin(Stdio::null())
        .stdout(writer.try_clone().expect("a pipe"))
        .stderr(writer);
    let mut child = command.spawn().expect("unshare cannot be started");
    // The command holds the writing end; without this the output would never end.
    drop(command);
    let mut begun = false;
    // Printed line by line, so that `--nocapture` shows a long test's progress.
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        begun |= line == BEGUN;
        if line != BEGUN && !is_libtest(&line) {
            println!("{line}");
        }
    }
    let status = child.wait().expect("unshare was started here");
    assert!(begun, "no test is called {test}: `scenario` must be called by the test itself");
    let binary =
        env::current_exe().ok().and_then(|file| Some(file.file_stem()?.to_string_lossy().into_owned()));
    let target = binary.as_deref().and_then(|name| name.rsplit_once('-')).map_or("NAME", |(name, _)| name);
    assert!(
        status.success(),
        "failed; to see it again: tests/run --test {target} -- --exact {test} --include-ignored --nocapture"
    );
}

/// Whether a line is what `libtest` says about the one test inside, which nobody needs twice.
fn is_libtest(line: &str) -> bool {
    line.is_empty() || line.starts_with("running ") || line.starts_with("test result: ") || line == "."
}

fn inside(body: impl FnOnce(&Scene)) {
    println!("{BEGUN}");
    let folder = tempfile::Builder::new().prefix("echovisor-test-").tempdir().expect("a temporary folder");
    let scene = Scene { folder: folder.path().into(), names: Mutex::default() };
    let ended = panic::catch_unwind(AssertUnwindSafe(|| body(&scene)));
    if let Err(panic) = ended {
        scene.show_logs();
        println!("files kept in {}", folder.keep().display());
        panic::resume_unwind(panic);
    }
}

impl Scene {
    /// A file or folder of this test. It is short enough for the path of a socket.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A name that starts with `stem` and that nothing else in this scene has.
    #[must_use]
    pub fn unique(&self, stem: &str) -> String {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name =
            (1..).map(|n| format!("{stem}-{n}")).find(|name| !names.contains(name)).expect("numbers go on");
        names.insert(name.clone());
        name
    }

    /// Random numbers, others in every run; `ECHOVISOR_SEED` repeats those of a run that printed it.
    ///
    /// # Panics
    /// If `ECHOVISOR_SEED` is no number.
    #[must_use]
    pub fn random(&self) -> Rng {
        let seed = size("ECHOVISOR_SEED", fastrand::u64(..));
        println!("random numbers from ECHOVISOR_SEED={seed}");
        Rng::with_seed(seed)
    }

    /// A file system with room for `bytes` only.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn small_disk(&self, bytes: u64) -> SmallDisk {
        let path = self.path(&self.unique("disk"));
        fs::create_dir(&path).expect("a folder");
        let mut mount = Command::new(program("mount"));
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "small"]).arg(&path);
        assert!(mount.status().is_ok_and(|status| status.success()), "`{mount:?}` failed");
        SmallDisk { path }
    }

    fn show_logs(&self) {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut logs: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        logs.sort();
        for log in logs {
            println!("--- {}\n{}", log.display(), tail(&log));
        }
    }
}

/// A file system that is soon full. It is gone when this value is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    /// Where it is mounted.
    pub path: PathBuf,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If somebody still uses it, the namespace's end takes it away.
        let _ = Command::new(program("umount")).arg(&self.path).status();
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
