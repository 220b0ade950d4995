//! The primary dies under load, and the clients notice nothing but a pause. All other faults are in `faults/`.

use echovisor_tests::{Account, KV, Lab, Load, Role, Scene, Status, scenario, size};

/// Kills a primary with this policy under load, after so many replies, and gives the new one's account of it.
fn kill_primary(scene: &Scene, policy: &str, (seed, replies): (u64, u64), account: &mut Account) -> Status {
    let lab = Lab::new(scene);
    let (mut primary, secondary) = lab.pair_with(KV, &["--policy", policy]);
    let before = secondary.wait_until("following", |status| status.role == Role::Secondary);
    let load = Load::start(&lab, seed);
    load.wait_for_replies(replies);
    let _ = load.longest_silence();
    assert_eq!(lab.secondary.guest_frames(), 0, "two nodes speak for the guest");
    primary.process.kill();
    load.wait_for_replies(replies);
    let status = lab.must_be_alone(&secondary, before.term + 1);
    account.round(load.longest_silence(), &status);
    account.clients(&load.finish());
    secondary.stop();
    status
}

/// Kills primaries with this policy, and prints what that has cost.
fn kills(scene: &Scene, policy: &str) {
    let mut random = scene.random();
    let mut account = Account::of("kill of the primary");
    let takeovers: Vec<Status> = (0..size("ECHOVISOR_KILLS", 3))
        .map(|_| kill_primary(scene, policy, (random.u64(..), random.u64(100..5000)), &mut account))
        .collect();
    account.print();
    print_parts(&takeovers);
}

#[test]
fn kills_of_the_primary_lose_nothing() {
    scenario(|scene| kills(scene, "replay"));
}

/// Its secondary holds the state of the last epoch.
#[test]
fn kills_under_checkpoint_lose_nothing() {
    scenario(|scene| kills(scene, "checkpoint"));
}

/// Its secondary holds the state behind the last output.
#[test]
fn kills_under_kemari_lose_nothing() {
    scenario(|scene| kills(scene, "kemari"));
}

/// What the takeovers were made of, as the new primaries say. Nothing is asserted about it: it depends on the host, and the
/// suspicion time is part of it if the link does not end with its process.
fn print_parts(takeovers: &[Status]) {
    println!("{:<32}{:>12}{:>12}", "ms", "median", "max");
    for part in ["suspicion_ms", "arbiter_ms", "replay_ms", "release_ms"] {
        let mut values: Vec<f64> =
            takeovers.iter().filter_map(|status| status.more.get(part)?.as_f64()).collect();
        values.sort_by(f64::total_cmp);
        if let (Some(max), Some(median)) = (values.last(), values.get(values.len() / 2)) {
            println!("{:<32}{median:>12.1}{max:>12.1}", part.trim_end_matches("_ms"));
        }
    }
}
