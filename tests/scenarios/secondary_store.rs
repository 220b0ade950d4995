//! A secondary with a store: its history begins, or goes on, when it takes over; and what it holds need not be sent.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use echovisor_tests::{Filling, KV, Lab, Load, Node, Replayed, Role, Scene, echovisor, scenario, wait_for};

const FILLING: usize = 8 << 20;

fn folder(scene: &Scene) -> PathBuf {
    scene.path(&scene.unique("store"))
}

/// The files of a store's snapshots.
fn snapshots(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(store.join("snapshots/manifests")).into_iter().flatten().flatten();
    let paths =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "snapshot"));
    paths.filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect()
}

/// The files of those that were not there before. Where a guest does nothing, a new one takes the place of an old one.
fn new_snapshots(store: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let now = snapshots(store).into_iter();
    now.filter(|(path, content)| before.get(path) != Some(content)).map(|(path, _)| path).collect()
}

/// Waits until a store has snapshots that it had not.
fn wait_for_snapshot(store: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) {
    wait_for("a snapshot", || {
        if new_snapshots(store, before).is_empty() { Err("none is new".to_owned()) } else { Ok(()) }
    });
}

fn promote(node: &Node) {
    let mut command = Command::new(echovisor());
    let output = command.args(["promote", "--control"]).arg(node.control()).output();
    let output = output.expect("echovisor can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Both nodes say so.
fn must_be_protected(primary: &Node, secondary: &Node) {
    primary.wait_until("protected", |status| status.protected);
    secondary.wait_until("fit to take over", |status| status.protected && status.role == Role::Secondary);
}

#[test]
fn a_guest_that_was_taken_over_goes_on_from_the_store_of_its_new_primary() {
    scenario(|scene| {
        for ack in ["memory", "disk"] {
            let lab = Lab::new(scene);
            let store = folder(scene).to_string_lossy().into_owned();
            let keep = ["--store", &store, "--ack", ack];
            let mut old = lab.primary(&lab.primary, KV);
            let new = lab.secondary_with(&lab.secondary, &lab.primary, &keep);
            must_be_protected(&old, &new);
            let term = old.status().expect("a status").term;
            let load = Load::start(&lab, scene.random().u64(..));
            load.wait_for_replies(1000);
            old.process.kill();
            let status = lab.must_be_alone(&new, term + 1);
            println!(
                "--ack {ack}: took over in {:?} ms, {} of it to release",
                status.takeover_ms, status.more["release_ms"]
            );
            load.wait_for_replies(1000);
            wait_for_snapshot(store.as_ref(), &BTreeMap::new());
            new.stop();

            let again = lab.unprotected_with(&lab.secondary, KV, &keep);
            load.wait_for_replies(1000);
            load.finish().must_be_clean();
            again.stop();
            let replayed = Replayed::exactly(store.as_ref(), &[]);
            assert!(replayed.from > 0, "its history did not begin at the takeover: {replayed:?}");

            // What a loss of both nodes leaves before the first snapshot is on disk.
            for file in snapshots(store.as_ref()).into_keys() {
                fs::remove_file(file).expect("a file");
            }
            let refused = lab.unprotected_with(&lab.secondary, KV, &keep).process.finish();
            assert_eq!(refused.code(), Some(4), "{refused}");
            assert!(refused.stdout.contains("has no snapshot to begin with"), "{refused}");
        }
    });
}

/// What is before the gap can be replayed, and never goes live.
#[test]
fn a_node_whose_guest_was_away_goes_on_behind_the_gap_or_not_at_all() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let folder = folder(scene);
        let store = ["--store", &folder.to_string_lossy()];
        let one = lab.primary_with(&lab.primary, KV, &store);
        let two = lab.secondary(&lab.secondary, &lab.primary);
        must_be_protected(&one, &two);
        let load = Load::start(&lab, scene.random().u64(..));
        load.wait_for_replies(500);
        promote(&one);
        must_be_protected(&two, &one);
        load.wait_for_replies(500);
        let old = snapshots(&folder);
        promote(&one);
        must_be_protected(&one, &two);
        load.wait_for_replies(500);
        wait_for_snapshot(&folder, &old);
        load.finish().must_be_clean();
        one.stop();
        let _ = two.process.finish();

        let there = new_snapshots(&folder, &old);
        let hidden = scene.path("hidden");
        fs::create_dir(&hidden).expect("a folder");
        for file in &there {
            fs::rename(file, hidden.join(file.file_name().expect("a file"))).expect("a file");
        }
        let refused = lab.unprotected_with(&lab.primary, KV, &store).process.finish();
        assert_eq!(refused.code(), Some(1), "{refused}");
        for part in ["no whole snapshot behind position", "another node ran it in between", "hint: "] {
            assert!(refused.stdout.contains(part), "`{part}` is not what it says: {refused}");
        }

        let (_, last) = refused.stdout.split_once("`replay --to ").expect("how to see it");
        let last = last.split('`').next().and_then(|number| number.parse().ok()).expect("a number");
        assert_eq!(Replayed::to(&folder, last).positions, last);
        let mut replay = Command::new(echovisor());
        let replay = replay.arg("replay").arg(&folder).output().expect("echovisor can be started");
        let said = String::from_utf8_lossy(&replay.stderr).into_owned();
        assert_eq!(replay.status.code(), Some(1), "{said}");
        assert!(said.contains("another node ran it in between"), "{said}");

        for file in &there {
            fs::rename(hidden.join(file.file_name().expect("a file")), file).expect("a file");
        }
        let again = lab.unprotected_with(&lab.primary, KV, &store);
        drop(lab.connect(6379));
        again.stop();
    });
}

#[test]
fn what_a_store_holds_is_not_sent() {
    scenario(|scene| join_with_a_store(scene, false));
}

/// What is damaged is sent, and written anew.
#[test]
fn a_store_that_is_damaged_is_mended() {
    scenario(|scene| join_with_a_store(scene, true));
}

/// A node with a store takes over, dies, and joins again.
fn join_with_a_store(scene: &Scene, damaged: bool) {
    let lab = Lab::new(scene);
    let folder = folder(scene);
    let store = ["--store", &folder.to_string_lossy()];
    let mut first = lab.primary(&lab.primary, KV);
    let mut kept = lab.secondary_with(&lab.secondary, &lab.primary, &store);
    must_be_protected(&first, &kept);
    let filling = Filling::of(&lab, FILLING);
    first.process.kill();
    kept.wait_until("the primary", |status| status.role == Role::Primary);
    wait_for_snapshot(&folder, &BTreeMap::new());

    let mut third = lab.secondary(&lab.primary, &lab.secondary);
    must_be_protected(&kept, &third);
    kept.process.kill();
    third.wait_until("the primary", |status| status.role == Role::Primary);
    let before = snapshots(&folder);
    if damaged {
        damage(&folder);
    }
    let again = lab.secondary_with(&lab.secondary, &lab.primary, &store);
    must_be_protected(&third, &again);
    let sent = third.status().expect("a status").link_bytes;
    println!("{sent} bytes on the link, log included");
    let said = again.process.said();
    assert_eq!(said.contains("is of no use"), damaged, "{said}");
    assert!(damaged || sent < FILLING as u64 / 4, "{sent} bytes on the link for what was in the store");

    third.process.kill();
    again.wait_until("the primary", |status| status.role == Role::Primary);
    wait_for_snapshot(&folder, &before);
    filling.must_be_there(&lab);
    again.stop();
    let again = lab.unprotected_with(&lab.secondary, KV, &store);
    filling.must_be_there(&lab);
    again.stop();
}

/// Changes a byte of a snapshot.
fn damage(store: &Path) {
    let packs = fs::read_dir(store.join("snapshots/packs")).expect("a folder").flatten();
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.len());
    let largest = packs.map(|file| file.path()).max_by_key(size).expect("a pack");
    let mut bytes = fs::read(&largest).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).expect("a file");
}

#[test]
fn a_store_of_another_guest_is_refused() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let folder = folder(scene);
        let store = ["--store", &folder.to_string_lossy()];
        let other = lab.unprotected_with(&lab.primary, KV, &store);
        other.wait_until("up", |_| true);
        other.stop();
        let primary = lab.primary(&lab.primary, KV);
        let refused = lab.secondary_with(&lab.secondary, &lab.primary, &store).process.finish();
        assert_eq!(refused.code(), Some(1), "{refused}");
        for part in ["is of another guest than the primary's", "give --store an empty folder"] {
            assert!(refused.stdout.contains(part), "`{part}` is not what it says: {refused}");
        }
        assert!(!primary.status().expect("a status").protected);
    });
}

/// The guest is worth more than its history.
#[test]
fn a_full_disk_does_not_end_a_guest_that_was_taken_over() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let disk = scene.small_disk(2 << 20);
        let store = disk.path.join("store").to_string_lossy().into_owned();
        let mut old = lab.primary(&lab.primary, KV);
        let new = lab.secondary_with(&lab.secondary, &lab.primary, &["--store", &store]);
        must_be_protected(&old, &new);
        let load = Load::start(&lab, scene.random().u64(..));
        load.wait_for_replies(500);
        old.process.kill();
        new.wait_until("without its disk", |status| status.more.contains_key("store"));
        load.wait_for_replies(500);
        load.finish().must_be_clean();
        new.stop();
    });
}
