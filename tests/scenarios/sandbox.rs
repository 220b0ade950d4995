//! A node's threads are under their filters, before and after a takeover; and it needs no root.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

use echovisor_tests::{KV, Lab, Load, Node, Process, Scene, echovisor, scenario};

/// How the kernel calls a thread under filters, in /proc.
const FILTERED: &str = "2";

/// An ordinary user: nobody, and the group of the same number.
const USER: &str = "65534";

/// Each thread's name, whether it is under filters, and how many these are.
fn threads(process: &Process) -> Vec<(String, String, u32)> {
    let folder = process.folder().expect("a running process");
    let tasks = fs::read_dir(folder.join("task")).expect("a running process");
    let threads = tasks.filter_map(|task| {
        let task = task.expect("a thread").path();
        // A thread that has just ended says nothing.
        let (name, status) = (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("status")));
        let (name, status) = (name.ok()?, status.ok()?);
        let fields: BTreeMap<_, _> = status.lines().filter_map(|line| line.split_once(":\t")).collect();
        let filters = fields["Seccomp_filters"].parse().expect("a number");
        Some((name.trim().to_owned(), fields["Seccomp"].to_owned(), filters))
    });
    threads.collect()
}

/// Every thread is under filters, the guest's under more than the others.
fn must_be_confined(node: &Node) {
    let threads = threads(&node.process);
    println!("{}: {threads:?}", node.process.name());
    assert!(threads.iter().all(|(_, mode, _)| mode == FILTERED), "{threads:?}");
    let (guests, others): (Vec<_>, Vec<_>) = threads.iter().partition(|(name, ..)| name == "vcpu");
    let [guest] = guests[..] else { panic!("not one guest: {threads:?}") };
    // KVM makes a thread of its own, in the kernel, out of the guest's.
    let others: Vec<_> = others.into_iter().filter(|(name, ..)| !name.starts_with("kvm-")).collect();
    assert!(!others.is_empty() && others.iter().all(|other| other.2 < guest.2), "{threads:?}");
}

#[test]
fn every_thread_of_a_pair_is_confined() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (mut primary, secondary) = lab.pair(KV);
        let load = Load::start(&lab, 2);
        must_be_confined(&primary);
        must_be_confined(&secondary);
        load.wait_for_replies(100);
        primary.process.kill();
        lab.must_be_alone(&secondary, 2);
        load.wait_for_replies(100);
        must_be_confined(&secondary);
        load.finish().must_be_clean();
    });
}

#[test]
fn filters_can_be_left_out() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let primary = lab.primary_with(&lab.primary, KV, &["--no-seccomp"]);
        let secondary = lab.secondary_with(&lab.secondary, &lab.primary, &["--no-seccomp"]);
        primary.wait_until("protected", |status| status.protected);
        for node in [&primary, &secondary] {
            let threads = threads(&node.process);
            assert!(threads.iter().all(|(_, mode, filters)| mode == "0" && *filters == 0), "{threads:?}");
        }
    });
}

/// What docs/security.md says that root has to prepare: devices that the user can open, and a TAP of the user's own. The rest
/// is done by the user.
#[test]
fn a_node_needs_no_root() {
    scenario(|scene| {
        if !fs::read_to_string("/proc/self/uid_map").expect("a map").contains("4294967295") {
            println!("this is a user's own namespace, so every test shows it: there is no root to be seen");
            return;
        }
        let lab = Lab::new(scene);
        let site = &lab.primary;
        site.namespace.ip("link delete tap0");
        site.namespace.ip(&format!("tuntap add tap0 mode tap user {USER}"));
        site.namespace.ip("link set tap0 up master br0");
        let folder = prepare(scene);
        // Elsewhere a group or an access list lets the user open the devices; here a copy of them does.
        let program = format!(
            "mknod $1/kvm c 10 232 && mknod $1/tun c 10 200 && chmod 666 $1/kvm $1/tun && \
             mount --bind $1/kvm /dev/kvm && mount --bind $1/tun /dev/net/tun && \
             exec setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs \
             {} -v record --net tap:tap0 --guest-args {} --out $1/recording --control $1/control",
            echovisor().display(),
            KV.arguments,
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &program, "sh", &folder]);
        let process = Process::start(scene, "user", &site.namespace, &mut command);
        let mut client = lab.connect(80);
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request");
        let mut reply = String::new();
        client.read_to_string(&mut reply).expect("a reply");
        assert!(reply.starts_with("HTTP/1."), "{reply}");
        let status = process.folder().expect("a running process").join("status");
        let status = fs::read_to_string(status).expect("a status");
        let users = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).expect("users");
        assert_eq!(users.split('\t').collect::<Vec<_>>(), [USER; 4]);
        assert!(threads(&process).iter().all(|(_, mode, _)| mode == FILTERED));
    });
}

/// A folder of the user's own.
fn prepare(scene: &Scene) -> String {
    let folder = scene.path("user");
    fs::create_dir(&folder).expect("a folder");
    let id = USER.parse().expect("a number");
    chown(&folder, Some(id), Some(id)).expect("this is root");
    // The way to it is the user's as well.
    fs::set_permissions(scene.path("."), Permissions::from_mode(0o711)).expect("a folder of ours");
    folder.to_string_lossy().into_owned()
}
