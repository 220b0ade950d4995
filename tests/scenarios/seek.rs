//! A replay may begin at a snapshot, and comes to the same state as one from the beginning.

use std::{
    fs,
    path::{Path, PathBuf},
};

use echovisor_snapshot::store::Snapshots;
use echovisor_tests::{KV, Lab, Node, Replayed, Scene, echovisor, scenario, size};
use serde_json::Value;

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
