//! How much memory a node's process has in use.

use std::{fs, path::PathBuf, process::Command};

use echovisor_tests::{Process, Scene, program};

/// The processes of a scenario, by their numbers in it: a `proc(5)` of its own.
pub(crate) struct Processes {
    mounted: PathBuf,
}

impl Processes {
    pub(crate) fn new(scene: &Scene) -> Processes {
        let mounted = scene.path(&scene.unique("proc"));
        fs::create_dir(&mounted).expect("a folder");
        let mut mount = Command::new(program("mount"));
        mount.args(["-t", "proc", "proc"]).arg(&mounted);
        assert!(mount.status().is_ok_and(|status| status.success()), "`{mount:?}` failed");
        Processes { mounted }
    }

    /// The largest resident set of a process since that was last forgotten, bytes.
    pub(crate) fn peak(&self, process: &Process) -> u64 {
        let status = fs::read_to_string(self.folder(process).join("status")).expect("proc(5)");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Begins the count of the peak anew.
    pub(crate) fn forget_peak(&self, process: &Process) {
        fs::write(self.folder(process).join("clear_refs"), "5").expect("proc(5)");
    }

    fn folder(&self, process: &Process) -> PathBuf {
        self.mounted.join(process.id().to_string())
    }
}
