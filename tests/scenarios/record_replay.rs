//! Every guest is recorded and replayed, and the replay is exact: the trail at every batch, the digest of memory, registers
//! and devices at every checkpoint.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
};

use echovisor_tests::{Guest, KV, Lab, Node, Replayed, Scene, echovisor, scenario, size};

/// How many positions a replay goes before it saves its state and goes on in a new machine.
const RESTORE_EVERY: u64 = 1000;

/// When the distances are random: the least average, and how many moves a long recording makes, for each takes its time.
const RESTORE_AT_RANDOM: (u64, u64) = (50, 40);

/// Replays once straight through, and from machine to machine: at equal distances, and at random ones.
fn replay_all_ways(scene: &Scene, recording: &Path) -> Replayed {
    let straight = Replayed::exactly(recording, &[]);
    let seed = scene.random().u64(..).to_string();
    let (least, moves) = RESTORE_AT_RANDOM;
    let at_random = (straight.positions / moves).max(least);
    for (every, more) in [(RESTORE_EVERY, &[][..]), (at_random, &["--restore-seed", &seed])] {
        let moved = Replayed::exactly(recording, &[&["--restore-every", &every.to_string()], more].concat());
        assert_eq!((straight.positions, straight.checkpoints), (moved.positions, moved.checkpoints));
        // Twice the average is the longest way.
        assert!(moved.restores >= moved.positions / (2 * every), "it stayed where it was: {moved:?}");
    }
    straight
}

/// Records `guest` while `drive` makes it do something; `stop` ends it.
fn record_and_replay(scene: &Scene, guest: Guest, drive: impl FnOnce(&Lab, &Node)) -> Replayed {
    let lab = Lab::new(scene);
    let (node, recording) = lab.record(&lab.primary, guest);
    drive(&lab, &node);
    node.stop();
    let straight = replay_all_ways(scene, &recording);
    println!("{}: {straight:?}", guest.name);
    straight
}

/// Records `kv` under redis-benchmark with these arguments, and replays it; as often as ECHOVISOR_RUNS says.
fn benchmark_and_replay(scene: &Scene, arguments: &str) {
    let requests = size("ECHOVISOR_REQUESTS", 5000);
    for _ in 0..size("ECHOVISOR_RUNS", 1) {
        record_and_replay(scene, KV, |lab, _| {
            drop(lab.connect(6379));
            lab.redis_benchmark(&format!("-t set,get,incr -r 1000000000 -d 16 -n {requests} {arguments}"));
        });
    }
}

#[test]
fn kv_with_one_client() {
    scenario(|scene| benchmark_and_replay(scene, "-c 1"));
}

#[test]
fn kv_with_fifty_clients() {
    scenario(|scene| benchmark_and_replay(scene, "-c 50"));
}

#[test]
fn kv_with_fifty_clients_that_pipeline() {
    scenario(|scene| benchmark_and_replay(scene, "-c 50 -P 16"));
}

#[test]
fn counter() {
    scenario(|scene| {
        let guest = Guest { name: "counter", arguments: "every=100" };
        record_and_replay(scene, guest, |_, node| {
            node.wait_until("counting", |status| status.position > 1000);
        });
    });
}

/// The guest ends the recording, not the operator.
#[test]
fn counter_that_powers_itself_off() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let guest = Guest { name: "counter", arguments: "every=50 ticks=300" };
        let (node, recording) = lab.record(&lab.primary, guest);
        let _ = node.process.finish().output();
        // The recording's console shares a file with its own messages; the replay's has one to itself.
        let words = ["replay".as_ref(), recording.as_os_str()];
        let said = lab.client.run(echovisor(), words).output();
        assert!(said.contains("count 300"), "{said}");
        replay_all_ways(scene, &recording);
    });
}

/// It computes for long without an exit, and answers in between.
#[test]
fn spin() {
    scenario(|scene| {
        let mut iterations = size("ECHOVISOR_SPIN", 20_000_000);
        // To some processor they take less than the five quanta after which the guest is called out.
        while spin_for(scene, iterations).deltas == 0 {
            iterations *= 4;
            assert!(iterations < 1 << 32, "it is called out when it computes for long");
        }
    });
}

/// Records and replays a guest that makes no exit for so many iterations.
fn spin_for(scene: &Scene, iterations: u64) -> Replayed {
    let arguments = format!("ip=10.0.0.2/24 spin={iterations}");
    let guest = Guest { name: "spin", arguments: arguments.leak() };
    record_and_replay(scene, guest, |lab, _| {
        let mut stream = lab.connect(7);
        let mut answers = BufReader::new(stream.try_clone().expect("a connection")).lines();
        for question in 0..5 {
            writeln!(stream, "question {question}").expect("the guest reads");
            let answer = answers.next().expect("an answer").expect("an answer");
            assert!(!answer.is_empty(), "an empty answer to question {question}");
        }
    })
}

/// A crash is an end like any other: reported when it is recorded, and found again by the replay.
#[test]
fn crash() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let guest = Guest { name: "crash", arguments: "after=100 kind=page at=0x8" };
        let (node, recording) = lab.record(&lab.primary, guest);
        let recorded = node.process.finish();
        assert_eq!(recorded.code(), Some(1), "{recorded}");
        for part in ["page fault", "0x8", "store"] {
            assert!(recorded.stdout.contains(part), "`{part}` is not in the report: {recorded}");
        }
        replay_all_ways(scene, &recording);
    });
}
