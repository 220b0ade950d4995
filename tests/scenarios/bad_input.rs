//! Whatever is wrong: an error that names it, a hint, the documented exit code, and nothing broken.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use echovisor_tests::{
    Finished, GUEST, Guest, KV, LIMIT, Lab, Namespace, Node, Process, Replayed, Role, Scene,
    elf::{RISC_V, X86_64, elf},
    program, scenario, wait_for,
};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CORRUPT: i32 = 4;
const UNFIT: i32 = 5;

/// Checks how a command was refused: the exit code, one error that contains `part`, one hint, no panic.
fn must_be_refused(finished: &Finished, code: i32, part: &str) {
    assert_eq!(finished.code(), Some(code), "{finished}");
    // A node's log has both of its outputs in one file.
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let line = |start: &str| said.lines().find(|line| line.starts_with(start));
    let error = line("error: ").unwrap_or_else(|| panic!("no error: {finished}"));
    assert!(error.to_lowercase().contains(part), "`{part}` is not in the error: {finished}");
    assert!(line("hint: ").is_some_and(|hint| hint.len() > "hint: ".len()), "no hint: {finished}");
    assert!(!said.contains("panicked"), "{finished}");
}

/// Runs `echovisor` with arguments that are separated by blanks.
fn echovisor(namespace: &Namespace, arguments: &str) -> Finished {
    namespace.run(echovisor_tests::echovisor(), arguments.split(' '))
}

/// Runs `echovisor` after `prelude`, a piece of shell that changes what it finds mounted.
fn echovisor_where(prelude: &str, arguments: &str) -> Finished {
    let script = format!("{prelude} && exec \"$@\"");
    let shell = ["--mount", "sh", "-c", &script, "sh"];
    let program = echovisor_tests::echovisor().to_string_lossy();
    Namespace::new().run("unshare", shell.into_iter().chain([&*program]).chain(arguments.split(' ')))
}

#[test]
fn a_host_without_kvm() {
    scenario(|scene| {
        let record = format!("record --guest counter --out {}", scene.path("out").display());
        let cases = [
            ("mount -t tmpfs none /dev", "/dev/kvm"),
            // Where devices are not allowed, opening one is not permitted, even to root.
            ("mount --bind /dev/kvm /dev/kvm && mount -o remount,bind,nodev /dev/kvm", "permission"),
        ];
        for (prelude, part) in cases {
            must_be_refused(&echovisor_where(prelude, &record), UNFIT, part);
        }
    });
}

#[test]
fn guests_that_are_none() {
    scenario(|scene| {
        let halt = [0xf4];
        let rdtsc = [0x0f, 0x31, 0xf4];
        let whole = elf(X86_64, &halt);
        let cases = [
            ("truncated", whole[..100].to_vec(), "could not read"),
            ("other machine", elf(RISC_V, &halt), "machine"),
            ("rdtsc", elf(X86_64, &rdtsc), "rdtsc"),
            ("text", b"#!/bin/sh\n".to_vec(), "elf"),
        ];
        for (name, program, part) in cases {
            let file = scene.path(name);
            fs::write(&file, program).expect("a file");
            let out = scene.path("out");
            let finished = Namespace::new().run(
                echovisor_tests::echovisor(),
                ["record".as_ref(), "--guest".as_ref(), file.as_os_str(), "--out".as_ref(), out.as_os_str()],
            );
            must_be_refused(&finished, CORRUPT, part);
        }
    });
}

#[test]
fn command_lines() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let out = scene.path("out").display().to_string();
        let missing = scene.path("no-such-folder/file").display().to_string();
        let _taken = lab.primary.namespace.enter(|| TcpListener::bind("10.1.0.1:7000")).expect("a port");
        let arbiter = format!("--arbiter file:{}", lab.arbiter().display());
        let keys = lab.keys(&lab.primary);
        let [key, peer] = [&keys[1], &keys[3]];
        let open = scene.path("open").display().to_string();
        fs::copy(key, &open).expect("a key");
        fs::set_permissions(&open, Permissions::from_mode(0o644)).expect("a mode");
        let node = format!("primary --guest counter {} --listen", keys.join(" "));
        let plain = format!("primary --guest counter {arbiter} --listen 10.1.0.1:7001");
        let cases = [
            (format!("record --guest counter --memory 4M --out {out}"), USAGE, "memory"),
            (format!("record --guest no-such --out {out}"), USAGE, "no-such"),
            (format!("record --guest kv --net tap:nosuch --out {out}"), FAILED, "nosuch"),
            (format!("{node} 10.1.0.1:7000 {arbiter}"), FAILED, "in use"),
            (format!("{node} 10.1.0.1:7001"), USAGE, "arbiter"),
            (format!("{node} 10.1.0.1:7001 --arbiter file:{missing}"), FAILED, "no-such-folder"),
            (plain.clone(), USAGE, "not encrypted"),
            (format!("{plain} --key {key}"), USAGE, "required arguments"),
            (format!("{plain} --peer {peer}"), USAGE, "required arguments"),
            (format!("{plain} --key {open} --peer {peer}"), USAGE, "others than its owner"),
            (format!("{plain} --key {missing} --peer {peer}"), FAILED, "cannot read the key"),
            (format!("{plain} --key {peer} --peer {peer}"), USAGE, "others than its owner"),
            (format!("{plain} --key {key} --peer {key}"), USAGE, "private key"),
            (format!("keygen --out {key}"), FAILED, "exists"),
            (format!("replay {missing}"), FAILED, "no recording"),
            (format!("status --control {missing}"), FAILED, "no control socket"),
        ];
        for (arguments, code, part) in cases {
            must_be_refused(&echovisor(&lab.primary.namespace, &arguments), code, part);
        }
    });
}

/// A recording with several segments, of a guest that needs no network.
fn recording(scene: &Scene) -> PathBuf {
    let lab = Lab::new(scene);
    let guest = Guest { name: "counter", arguments: "every=1000000" };
    let (node, recording) = lab.record(&lab.primary, guest);
    node.wait_until("past a checkpoint", |status| status.last_checkpoint.is_some_and(|at| at > 0));
    node.stop();
    recording
}

/// The files of a recording's segments, in order.
fn segments(recording: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(recording.join("segments")).expect("segments");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn recordings_that_are_damaged() {
    scenario(|scene| {
        let recording = recording(scene);
        let files = segments(&recording);
        let [first, second, ..] = &files[..] else { panic!("one segment only: {files:?}") };
        let header = recording.join("header");
        let replay = format!("replay --verify --json {}", recording.display());

        // What is wrong is undone after each case, so each is seen alone.
        let damage = |file: &Path, part: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let whole = fs::read(file).expect("a file");
            let mut changed = whole.clone();
            change(&mut changed);
            fs::write(file, changed).expect("a file");
            must_be_refused(&echovisor(&Namespace::new(), &replay), CORRUPT, part);
            fs::write(file, whole).expect("a file");
        };
        damage(first, "truncated", &|bytes| bytes.truncate(bytes.len() - 3));
        damage(second, "truncated", &|bytes| bytes.truncate(bytes.len() / 2));
        let flip = |bytes: &mut Vec<u8>| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        };
        damage(second, "changed", &flip);
        damage(first, "changed", &flip);
        damage(&header, "changed", &flip);
        damage(&header, "version", &|bytes| bytes[8] ^= 1);

        // The log before a damaged segment is still good.
        let whole = Replayed::exactly(&recording, &[]);
        let mut bytes = fs::read(second).expect("a file");
        flip(&mut bytes);
        fs::write(second, bytes).expect("a file");
        let part = Replayed::of(&recording, &["--to", "10000"]);
        assert!(part.positions >= 10_000 && part.positions < whole.positions, "{part:?} of {whole:?}");
    });
}

/// The flavour of KVM is part of the fingerprint; it is told by the modules that are loaded.
#[test]
fn a_recording_of_another_host() {
    scenario(|scene| {
        let replay = format!("replay {}", recording(scene).display());
        must_be_refused(
            &echovisor_where("mount -t tmpfs none /sys/module", &replay),
            UNFIT,
            "another kind of host",
        );
    });
}

#[test]
fn a_disk_that_is_full() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let disk = scene.small_disk(2 << 20);
        let folder = disk.path.join("recording");
        let out = ["--net", "tap:tap0", "--out", &folder.to_string_lossy()].map(String::from);
        let node = Node::start(scene, &lab.primary.namespace, "record", &[&KV.words()[..], &out].concat());
        drop(lab.connect(6379));
        // Random keys, more than fit. When the guest dies under it, there is nobody to answer it.
        let flood = format!("-h {GUEST} -t set -r 1000000000 -c 50 -P 16 -n 100000000");
        let mut command = Command::new(program("redis-benchmark"));
        command.args(flood.split(' '));
        let _flood = Process::start(scene, "redis-benchmark", &lab.client, &mut command);
        must_be_refused(&node.process.finish(), FAILED, "no space");
        // What fitted is whole; but its index wants room, so it is read elsewhere.
        let elsewhere = scene.path("elsewhere");
        let copy = lab.client.run("cp", ["-r".as_ref(), folder.as_os_str(), elsewhere.as_os_str()]);
        assert!(copy.succeeded(), "{copy}");
        assert!(Replayed::of(&elsewhere, &[]).positions > 0, "nothing was recorded");
    });
}

/// Whoever connects to a primary and talks nonsense, or nothing, is sent away, and a real secondary can still join.
#[test]
fn peers_that_are_none_at_a_primary() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let primary = lab.primary(&lab.primary, KV);
        let connect = || {
            let address = format!("{}:7000", lab.primary.address);
            let attempt = lab.secondary.namespace.enter(|| TcpStream::connect(address));
            attempt.map_err(|error| error.to_string())
        };
        let nonsense = [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 4096]];
        for bytes in nonsense {
            let mut stream = wait_for("a connection to the primary", connect);
            // It may hang up before it has read everything.
            let _ = stream.write_all(bytes);
            must_hang_up(stream);
        }
        let silent = wait_for("a connection to the primary", connect);
        let secondary = lab.secondary(&lab.secondary, &lab.primary);
        primary.wait_until("protected", |status| status.protected);
        must_hang_up(silent);
        assert!(primary.status().expect("a status").protected, "the silent peer took its place");
        assert_eq!(secondary.status().expect("a status").role, Role::Secondary);
        assert!(!primary.process.said().contains("panicked"), "{}", primary.process.said());
        primary.stop();
    });
}

fn must_hang_up(mut stream: TcpStream) {
    stream.set_read_timeout(Some(LIMIT)).expect("a socket has a timeout");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the primary did not hang up: {error}"),
    }
}

/// A secondary that finds something else where a primary should be says so, and goes on looking until there is one.
#[test]
fn peers_that_are_none_at_a_secondary() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        // Nonsense, silence, and a connection that is closed at once.
        let peers: [fn(&mut TcpStream); 3] = [
            |stream| {
                let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
                let _ = stream.read_to_end(&mut Vec::new());
            },
            |stream| {
                let _ = stream.read_to_end(&mut Vec::new());
            },
            |_| {},
        ];
        let secondary = lab.secondary(&lab.secondary, &lab.primary);
        for peer in peers {
            let listener =
                lab.primary.namespace.enter(|| TcpListener::bind("10.1.0.1:7000")).expect("a port");
            let (mut stream, _) = listener.accept().expect("the secondary dials");
            // Each of them lasts until the secondary hangs up.
            peer(&mut stream);
        }
        let said = secondary.process.said();
        assert!(said.contains("dialling on") && !said.contains("panicked"), "{said}");
        let primary = lab.primary(&lab.primary, KV);
        primary.wait_until("protected", |status| status.protected);
        primary.stop();
    });
}
