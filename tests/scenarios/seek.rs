//! A replay may begin at a snapshot, and comes to the same state as one from the beginning.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use echovisor_snapshot::store::Snapshots;
use echovisor_tests::{KV, Lab, Node, Replayed, Scene, echovisor, scenario, size};
use serde_json::{Value, json};

/// How far snapshots are from each other here.
const EVERY: &str = "2000";

fn positions(recording: &Path) -> Vec<u64> {
    let snapshots = Snapshots::open(&recording.join("snapshots")).expect("a store");
    snapshots.list().iter().map(|manifest| manifest.position.0).collect()
}

/// Records `kv` under load, with more arguments for `record`. The last snapshot is one that was asked for.
fn record(scene: &Scene, more: &[&str]) -> PathBuf {
    let lab = Lab::new(scene);
    let (node, recording) = lab.record_with(&lab.primary, KV, &[&["--snapshot-every", EVERY], more].concat());
    drop(lab.connect(6379));
    let requests = size("ECHOVISOR_REQUESTS", 5000);
    lab.redis_benchmark(&format!("-t set,get,incr -r 1000000000 -d 16 -n {requests} -c 1"));
    let asked = snapshot(&lab, &node);
    let kept = node.status().expect("a status").snapshots.expect("it keeps some");
    assert_eq!(kept.position, Some(asked), "{kept:?}");
    assert!(kept.count > 1 && kept.bytes > 0 && kept.ended.is_none(), "{kept:?}");
    node.stop();
    assert_eq!(positions(&recording).last(), Some(&asked), "it is on disk when the answer comes");
    recording
}

/// Asks for a snapshot, and tells where it was taken.
fn snapshot(lab: &Lab<'_>, node: &Node) -> u64 {
    let words = ["snapshot".as_ref(), "--json".as_ref(), "--control".as_ref(), node.control().as_os_str()];
    let said = lab.client.run(echovisor(), words).output();
    let taken: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said}"));
    taken["position"].as_u64().expect("a position")
}

#[test]
fn any_position_is_reached_from_the_snapshot_before_it() {
    scenario(|scene| {
        let recording = record(scene, &[]);
        let whole = Replayed::exactly(&recording, &[]);
        let snapshots = positions(&recording);
        println!("{} positions, snapshots at {snapshots:?}", whole.positions);
        assert!(snapshots.len() > 3 && snapshots[0] == 0, "{snapshots:?}");
        let mut random = scene.random();
        let seeks = size("ECHOVISOR_SEEKS", 10);
        // The snapshots themselves, and what is beside them, are worth a look of their own.
        let beside = [snapshots[1] - 1, snapshots[1], snapshots[1] + 1, snapshots[2]];
        let more = std::iter::repeat_with(|| random.u64(..=whole.positions));
        for at in beside.into_iter().chain(more).take(seeks as usize) {
            let straight = Replayed::of(&recording, &["--to", &at.to_string()]);
            let sought = Replayed::to(&recording, at);
            assert_eq!(straight.from, 0);
            assert_eq!(Some(&sought.from), snapshots.iter().rfind(|snapshot| **snapshot <= at), "{at}");
            assert!(sought.digest.is_some());
            assert_eq!((sought.positions, &sought.digest), (straight.positions, &straight.digest), "{at}");
        }
    });
}

#[test]
fn an_older_snapshot_serves_where_one_is_damaged() {
    scenario(|scene| {
        let recording = record(scene, &[]);
        let snapshots = positions(&recording);
        let at = snapshots[2] + 1;
        let whole = Replayed::to(&recording, at);
        assert_eq!(whole.from, snapshots[2]);
        let manifest = recording.join(format!("snapshots/manifests/{:020}.snapshot", snapshots[2]));
        let mut bytes = fs::read(&manifest).expect("a manifest");
        bytes[60] ^= 1;
        fs::write(&manifest, bytes).expect("it can be written");
        let earlier = Replayed::to(&recording, at);
        assert_eq!((earlier.from, earlier.digest), (snapshots[1], whole.digest));
    });
}

/// What `inspect --verify` says, and its exit code.
fn verify(recording: &Path) -> (Value, Option<i32>) {
    let mut command = Command::new(echovisor());
    let output = command.args(["inspect", "--verify", "--json"]).arg(recording).output().expect("it runs");
    (serde_json::from_slice(&output.stdout).expect("JSON"), output.status.code())
}

#[test]
fn a_damaged_byte_is_named_with_what_can_be_replayed() {
    scenario(|scene| {
        let recording = record(scene, &[]);
        let snapshots = positions(&recording);
        let (whole, code) = verify(&recording);
        assert_eq!((code, &whole["damaged"], &whole["snapshots"]), (Some(0), &json!([]), &json!(snapshots)));
        let end = whole["replayable"][0]["to"].as_u64().expect("a position");
        assert_eq!(whole["replayable"], json!([{ "from": 0, "to": end }]));
        assert_eq!(Replayed::exactly(&recording, &[]).positions, end);

        // One of the segments in the middle: a replay from the snapshot behind it still can be.
        let manifests = Snapshots::open(&recording.join("snapshots")).expect("a store").list().to_vec();
        let (before, behind) = (manifests[1], manifests[2]);
        let segment = recording.join(format!("segments/{:08}.seg", before.segment));
        let mut bytes = fs::read(&segment).expect("a segment");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&segment, bytes).expect("it can be written");
        let (damaged, code) = verify(&recording);
        assert_eq!(code, Some(4), "{damaged}");
        let [found] = &damaged["damaged"].as_array().expect("a list")[..] else { panic!("{damaged}") };
        assert!(found["what"].as_str().is_some_and(|what| what.contains(".seg: byte ")), "{damaged}");
        let [first, last] = &damaged["replayable"].as_array().expect("a list")[..] else {
            panic!("{damaged}")
        };
        assert!(first["from"] == 0 && first["to"].as_u64() < Some(behind.position.0), "{damaged}");
        assert_eq!(last, &json!({ "from": behind.position.0, "to": end }));
        assert_eq!(Replayed::to(&recording, end).from, *snapshots.last().expect("some"));
    });
}

/// The first one stays, for a replay from the beginning.
#[test]
fn as_many_snapshots_stay_as_are_to_be_kept() {
    scenario(|scene| {
        let recording = record(scene, &["--keep", "2"]);
        let snapshots = positions(&recording);
        assert!(snapshots.len() == 3 && snapshots[0] == 0, "{snapshots:?}");
        let replayed = Replayed::exactly(&recording, &[]);
        assert!(replayed.positions >= snapshots[2]);
    });
}
