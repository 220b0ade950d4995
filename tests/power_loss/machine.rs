//! An emulated machine with a disk and a network, whose power can be cut.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use echovisor_tests::{Namespace, Process, Scene};
use fastrand::Rng;

use crate::disk::{Cut, Disk, EXPORT};

/// Where the guest is reached from outside of the machine.
pub(crate) const PORT: u16 = 6379;

/// Makes a file system on the disk, if there is none, and mounts it.
const MOUNT: &str = "set -e
blkid /dev/vda >/dev/null || mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/vda
mkdir /run/disk && mount /dev/vda /run/disk
";

/// Puts the guest's TAP on the machine's own network.
const NETWORK: &str = "ip link add br0 type bridge forward_delay 0
ip tuntap add tap0 mode tap
for port in eth0 tap0; do ip link set $port up master br0; done
ip link set br0 up
";

/// How long a machine may take to get on, on a busy host, and if it has to be started twice.
const LIMIT: Duration = Duration::from_secs(300);

/// A machine that is on.
pub(crate) struct Machine<'a> {
    process: Process,
    disk: &'a Disk,
}

impl<'a> Machine<'a> {
    /// A machine that runs a script with `disk` mounted at `/run/disk`.
    pub(crate) fn start(scene: &Scene, network: &Namespace, disk: &'a Disk, script: &str) -> Machine<'a> {
        let socket = disk.socket().display();
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("bed/run");
        let mut command = Command::new(run);
        command.args(["bash", "-c", &format!("{MOUNT}{script}")]);
        command.env("ECHOVISOR_BED_MEMORY", "1024");
        command.env(
            "ECHOVISOR_BED_DEVICES",
            format!(
                "-blockdev driver=nbd,node-name=disk,server.type=unix,server.path={socket},export={EXPORT} \
             -device virtio-blk-pci,drive=disk,write-cache=on \
             -netdev user,id=net,net=10.0.0.0/24,host=10.0.0.1,hostfwd=tcp:127.0.0.1:{PORT}-10.0.0.2:6379 \
             -device virtio-net-pci,netdev=net,romfile="
            ),
        );
        Machine { process: Process::start(scene, "machine", network, &mut command), disk }
    }

    /// A machine that goes on with what is on its disk, as a primary.
    pub(crate) fn primary(scene: &Scene, network: &Namespace, disk: &'a Disk, options: &str) -> Machine<'a> {
        let node = "exec $ECHOVISOR_TESTS_BINARY -v primary --store /run/disk/store --guest kv --guest-args ip=10.0.0.2/24 --net tap:tap0";
        Machine::start(scene, network, disk, &format!("{NETWORK}echo mounted\n{node} {options}"))
    }

    /// Asks again and again, until there is an answer or the power has failed.
    ///
    /// # Panics
    /// If the machine ends by itself, or does not get on.
    pub(crate) fn wait_for<T>(&mut self, what: &str, mut ask: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        loop {
            let ended = self.process.ended();
            let said = self.process.said();
            if let Some(answer) = ask(&said) {
                return Some(answer);
            }
            if self.disk.is_dead() {
                return None;
            }
            assert!(ended.is_none(), "the machine ended before {what}: {said}");
            assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for {what}: {said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Cuts the power of the emulator, then of its disk. Each sector that was written and not flushed survives with this
    /// probability.
    pub(crate) fn cut(mut self, survival: f64, random: &mut Rng) -> Cut {
        self.off();
        self.disk.cut(survival, random)
    }

    /// Cuts the power of the emulator.
    pub(crate) fn off(&mut self) {
        if self.process.ended().is_none() {
            self.process.terminate();
        }
        let start = Instant::now();
        while self.process.ended().is_none() {
            assert!(start.elapsed() < LIMIT, "the emulator does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
