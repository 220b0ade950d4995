//! What ARCHITECTURE.md says about the source must be true of the source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    path::{Path, PathBuf},
};

use echovisor_guests::abi;
use echovisor_machine::boot::layout;
use echovisor_tests::cargo;
use serde_json::Value;

/// Who may know whom, without the `echovisor-` that all names have. What stands in no row may know nobody.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("machine", &["event"]),
    ("log", &["event"]),
    ("snapshot", &["event", "machine"]),
    ("recorder", &["event", "machine", "log", "snapshot"]),
    ("replayer", &["event", "machine", "log", "snapshot"]),
    ("tools", &["event", "machine", "log", "snapshot", "recorder", "replayer", "guests"]),
    ("tests", &["event", "machine", "log", "snapshot", "recorder", "replayer", "guests", "tools"]),
    ("guests", &[]),
];

/// The packages of the workspace, as Cargo reads their manifests.
fn packages() -> Vec<Value> {
    let output = cargo().args(["metadata", "--no-deps", "--locked", "--format-version=1"]).output();
    let output = output.expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn short_name(package: &Value) -> &str {
    let name = package["name"].as_str().expect("a name");
    name.strip_prefix("echovisor-").unwrap_or(name)
}

#[test]
fn nobody_knows_whom_they_must_not_know() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(short_name).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    assert!(
        allowed.keys().all(|name| ours.contains(name)),
        "the table names a package that is not there: {ours:?}"
    );
    let arrows = packages.iter().flat_map(|package| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        dependencies.iter().map(move |dependency| (short_name(package), short_name(dependency)))
    });
    let ours = arrows.filter(|(_, to)| ours.contains(to));
    let forbidden: Vec<_> =
        ours.filter(|(from, to)| !allowed.get(from).is_some_and(|row| row.contains(to))).collect();
    assert!(forbidden.is_empty(), "forbidden dependencies: {forbidden:?}");
}

/// Every path by which the host could leak into the machine, as `machine/clippy.toml` must name it.
#[test]
fn clippy_keeps_the_host_out_of_the_machine() {
    let bans = fs::read_to_string(root().join("machine/clippy.toml")).expect("machine/clippy.toml");
    let bans: String = bans.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for banned in [
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "std::collections::HashMap",
        "std::collections::HashSet",
        "std::thread::spawn",
        "std::net::TcpStream",
        "std::os::unix::net::UnixStream",
        "std::fs::File",
        "std::env::var",
    ] {
        assert!(bans.contains(&format!("path = \"{banned}\"")), "{banned} is not banned");
    }
    for source in sources(&root().join("machine/src")) {
        let text = fs::read_to_string(&source).expect("a source file");
        let allows = text.contains("allow(clippy::disallowed") || text.contains("expect(clippy::disallowed");
        assert!(!allows, "{} makes an exception for itself", source.display());
    }
}

#[test]
fn every_package_shares_the_lints() {
    for package in packages() {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let text = fs::read_to_string(manifest).expect("a manifest");
        assert!(text.contains("[lints]\nworkspace = true\n"), "{manifest}");
    }
}

/// The lints deny these for the host's side; the guests' workspace has lints of its own.
#[test]
fn nothing_is_left_to_do_in_the_guests() {
    for source in sources(&root().join("guests")) {
        let text = fs::read_to_string(&source).expect("a source file");
        assert!(!text.contains("todo!(") && !text.contains("unimplemented!("), "{}", source.display());
    }
}

/// docs/guest-abi.md stands in two places, since guest and machine must not depend on each other.
#[test]
fn machine_and_guests_agree_on_the_abi() {
    assert_eq!(abi::CONSOLE_PORT, layout::CONSOLE_PORT);
    assert_eq!(abi::DOORBELL_PORT, layout::DOORBELL_PORT);
    assert_eq!(abi::POWER_PORT, layout::POWER_PORT);
    assert_eq!(abi::CRASH_PORT, layout::CRASH_PORT);
    assert_eq!(abi::PCI_ADDRESS_PORT, layout::PCI_ADDRESS_PORT);
    assert_eq!(abi::PCI_DATA_PORT, layout::PCI_DATA_PORT);
    assert_eq!(abi::CONTROL_ADDRESS, layout::CONTROL);
    assert_eq!(abi::IMAGE_BASE, layout::IMAGE_BASE);
    assert_eq!(abi::LOW_MEMORY_END, layout::LOW_MEMORY_END);
    assert_eq!(abi::HIGH_MEMORY, layout::HIGH_MEMORY);
    assert_eq!(abi::CONTROL_MAGIC, layout::CONTROL_MAGIC);
    assert_eq!(abi::CONTROL_VERSION, layout::CONTROL_VERSION);
    assert_eq!(abi::ARGUMENTS_MAX, layout::ARGUMENTS_MAX);

    macro_rules! offset {
        ($($field:ident = $constant:ident),+) => {$(
            assert_eq!(mem::offset_of!(abi::Control, $field) as u64, layout::control::$constant, stringify!($field));
        )+};
    }
    offset!(magic = MAGIC, version = VERSION, arguments_length = ARGUMENTS_LENGTH, memory_size = MEMORY_SIZE);
    offset!(image_end = IMAGE_END, deadline = DEADLINE, clock = CLOCK, wall = WALL, seed = SEED);
    offset!(arguments = ARGUMENTS);
    let seed = mem::offset_of!(abi::Control, seed)..mem::offset_of!(abi::Control, reserved);
    assert_eq!(seed.len(), layout::control::SEED_LENGTH);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file below `folder`, but nothing that Cargo built there.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let built = |path: &PathBuf| path.ends_with("target");
    let below = folders.into_iter().filter(|path| !built(path)).flat_map(|path| sources(&path));
    files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")).chain(below).collect()
}
