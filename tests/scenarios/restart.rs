//! A primary with a store comes back after a stop and after a kill, with its guest's state and its clients' connections; or it
//! says why it may not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use echovisor_tests::{Account, Finished, Guest, KV, Lab, Load, Node, Replayed, Role, Scene, scenario, size};

fn folder(scene: &Scene) -> PathBuf {
    scene.path(&scene.unique("store"))
}

/// A primary without a peer that keeps its history in `folder`.
fn lone(lab: &Lab, guest: Guest, folder: &Path, more: &[&str]) -> Node {
    let store = ["--store", &folder.to_string_lossy()];
    lab.unprotected_with(&lab.primary, guest, &[&store[..], more].concat())
}

/// A primary that is expected to refuse, and how it did.
fn refused(node: Node, code: i32, parts: &[&str]) -> Finished {
    let ended = node.process.finish();
    assert_eq!(ended.code(), Some(code), "{ended}");
    for part in parts.iter().chain(&["hint: "]) {
        assert!(ended.stdout.contains(part), "`{part}` is not what it says: {ended}");
    }
    ended
}

#[test]
fn a_stopped_guest_goes_on_where_it_stood() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let folder = folder(scene);
        let mut node = lone(&lab, KV, &folder, &[]);
        let load = Load::start(&lab, scene.random().u64(..));
        let mut account = Account::of("stop and start");
        for _ in 0..size("ECHOVISOR_KILLS", 3) {
            load.wait_for_replies(500);
            let _ = load.longest_silence();
            node.stop();
            node = lone(&lab, KV, &folder, &[]);
            let status = node.wait_until("alive", |status| status.role == Role::Primary);
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
            let said = node.process.said();
            assert!(said.contains("; 0 positions replayed"), "the last snapshot was not taken: {said}");
        }
        account.clients(&load.finish());
        account.print();
        node.stop();
        println!("{:?}", Replayed::exactly(&folder, &[]));
    });
}

#[test]
fn a_killed_primary_comes_back_with_all_that_was_on_disk() {
    scenario(|scene| {
        let mut random = scene.random();
        let lab = Lab::new(scene);
        let folder = folder(scene);
        let options = ["--ack", "disk", "--snapshot-every", "2000"];
        let mut node = lone(&lab, KV, &folder, &options);
        let load = Load::start(&lab, random.u64(..));
        let mut account = Account::of("kill of a lone primary");
        for _ in 0..size("ECHOVISOR_KILLS", 3) {
            load.wait_for_replies(random.u64(100..3000));
            let _ = load.longest_silence();
            node.process.kill();
            node = lone(&lab, KV, &folder, &options);
            let status = node.wait_until("alive", |status| status.role == Role::Primary);
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
        }
        account.clients(&load.finish());
        account.print();
        node.stop();
        println!("{:?}", Replayed::exactly(&folder, &[]));
    });
}

#[test]
fn without_the_disk_the_loss_of_the_last_moments_must_be_accepted() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let folder = folder(scene);
        let mut node = lone(&lab, KV, &folder, &[]);
        drop(lab.connect(6379));
        node.process.kill();
        refused(lone(&lab, KV, &folder, &[]), 1, &["may be missing", "--accept-rollback", "--ack disk"]);
        let node = lone(&lab, KV, &folder, &["--accept-rollback"]);
        drop(lab.connect(6379));
        node.stop();
    });
}

#[test]
fn a_past_that_others_have_left_behind_does_not_go_live() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let folder = folder(scene).to_string_lossy().into_owned();
        let store = ["--store", &folder, "--ack", "disk"];
        let mut primary = lab.primary_with(&lab.primary, KV, &store);
        let secondary = lab.secondary(&lab.secondary, &lab.primary);
        let term = primary.wait_until("protected", |status| status.protected).term;
        let load = Load::start(&lab, scene.random().u64(..));
        load.wait_for_replies(500);
        primary.process.kill();
        let _ = lab.must_be_alone(&secondary, term + 1);

        let again = [&store[..], &["--accept-rollback"]].concat();
        refused(
            lab.primary_with(&lab.primary, KV, &again),
            1,
            &["is held by node", "join it as a secondary"],
        );
        // Without the arbiter it does not even ask.
        let alone = ["--store", &folder, "--guest", "kv", "--net", "tap:tap0"].map(String::from);
        let alone = Node::start(scene, &lab.primary.namespace, "primary", &alone);
        refused(alone, 1, &["an arbiter decides", "--arbiter file:PATH"]);

        let join = format!("{}:7000", lab.secondary.address);
        let back = lab.primary_with(&lab.primary, KV, &[&store[..], &["--join", &join]].concat());
        secondary.wait_until("protected", |status| status.protected);
        let status = back.wait_until("following", |status| status.role == Role::Secondary);
        assert_eq!(status.term, term + 1, "{status:?}");
        load.wait_for_replies(500);
        load.finish().must_be_clean();
        secondary.stop();
    });
}

#[test]
fn a_start_that_came_to_nothing_is_made_again() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let folder = folder(scene);
        let node = lone(&lab, KV, &folder, &["--ack", "disk"]);
        node.wait_until("up", |_| true);
        node.stop();
        // What is there when the header is on disk, and nothing that comes after it.
        fs::remove_file(folder.join("writer")).expect("a file");
        for part in ["segments", "snapshots", "index"] {
            fs::remove_dir_all(folder.join(part)).expect("a folder");
            fs::create_dir(folder.join(part)).expect("a folder");
        }
        let node = lone(&lab, KV, &folder, &["--ack", "disk"]);
        drop(lab.connect(6379));
        node.stop();
    });
}

#[test]
fn a_history_that_is_over_and_another_guest_are_refused() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (counted, folder) = (folder(scene), folder(scene));
        let counter = Guest { name: "counter", arguments: "every=10 ticks=5" };
        let _ = lone(&lab, counter, &counted, &[]).process.finish().output();
        let again = lone(&lab, counter, &counted, &["--accept-rollback"]);
        refused(again, 1, &["powered itself off with code 0", "its history is over"]);

        let begun = lone(&lab, KV, &folder, &[]);
        begun.wait_until("up", |_| true);
        begun.stop();
        refused(lone(&lab, counter, &folder, &[]), 2, &["was started with --guest kv"]);
        refused(lone(&lab, KV, &folder, &["--memory", "128M"]), 2, &["was started with --memory 64M"]);
    });
}
