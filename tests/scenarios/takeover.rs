//! Nodes die under load, and the clients notice nothing but a pause.

use echovisor_tests::{KV, Lab, Load, Node, Role, Scene, Status, Verdict, scenario, size, wait_for};

/// A takeover as its client, the new primary and the arbiter saw it.
struct Takeover {
    verdict: Verdict,
    status: Status,
}

/// Kills a primary under load, after so many replies.
fn kill_primary(scene: &Scene, seed: u64, replies: u64) -> Takeover {
    let lab = Lab::new(scene);
    let (mut primary, secondary) = lab.pair(KV);
    let before = secondary.wait_until("following", |status| status.role == Role::Secondary);
    let load = Load::start(&lab, seed);
    load.wait_for_replies(replies);
    assert_eq!(lab.secondary.guest_frames(), 0, "two nodes speak for the guest");
    primary.process.kill();
    load.wait_for_replies(replies);
    let status = must_be_alone(&lab, &secondary, before.term + 1);
    let verdict = load.finish();
    verdict.must_be_clean();
    secondary.stop();
    Takeover { verdict, status }
}

/// Checks that `node` runs the guest without protection, in this term, and that the arbiter says so too.
fn must_be_alone(lab: &Lab, node: &Node, term: u64) -> Status {
    let status = node.wait_until("the primary", |status| status.role == Role::Primary && !status.protected);
    assert_eq!(status.term, term, "one takeover is one term: {status:?}");
    assert_eq!(status.divergences, 0, "{status:?}");
    let record = lab.arbiter_record();
    assert_eq!((&record["mode"], &record["term"]), (&"solo".into(), &term.into()), "{record}");
    status
}

#[test]
fn kills_of_the_primary_lose_nothing() {
    scenario(|scene| {
        let mut random = scene.random();
        let kills = size("ECHOVISOR_KILLS", 3);
        let mut takeovers = Vec::new();
        for kill in 1..=kills {
            let (seed, replies) = (random.u64(..), random.u64(100..5000));
            println!("kill {kill} of {kills}: after {replies} replies, load {seed}");
            let takeover = kill_primary(scene, seed, replies);
            println!("  {}", takeover.verdict);
            takeovers.push(takeover);
        }
        print_table(&takeovers);
    });
}

/// Times of the takeovers, and what the new primaries say they are made of. Nothing is asserted about them: they depend on
/// the host, and the suspicion time is part of the silence if the link does not end with its process.
fn print_table(takeovers: &[Takeover]) {
    let mut rows = vec![("silence seen by the clients".to_owned(), Vec::new())];
    rows[0].1 = takeovers.iter().map(|t| t.verdict.longest_silence.as_secs_f64() * 1000.0).collect();
    rows.push(("takeover, by the new primary".to_owned(), Vec::new()));
    rows[1].1 = takeovers.iter().filter_map(|t| t.status.takeover_ms).collect();
    let parts = takeovers[0].status.more.keys().filter(|name| name.ends_with("_ms"));
    for part in parts {
        let values = takeovers.iter().filter_map(|t| t.status.more.get(part)?.as_f64());
        rows.push((format!("  {}", part.trim_end_matches("_ms")), values.collect()));
    }
    println!("{:<32}{:>12}{:>12}", "ms", "median", "max");
    for (name, mut values) in rows {
        values.sort_by(f64::total_cmp);
        if let (Some(max), Some(median)) = (values.last(), values.get(values.len() / 2)) {
            println!("{name:<32}{median:>12.1}{max:>12.1}");
        }
    }
}

#[test]
fn without_its_secondary_the_primary_goes_on_alone_and_says_so() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (primary, mut secondary) = lab.pair(KV);
        let term = primary.wait_until("protected", |status| status.protected).term;
        let load = Load::start(&lab, 1);
        load.wait_for_replies(500);
        secondary.process.kill();
        load.wait_for_replies(500);
        must_be_alone(&lab, &primary, term);
        load.finish().must_be_clean();
        wait_for("a word about it", || {
            let said = primary.process.said();
            if said.contains("unprotected") { Ok(()) } else { Err(said) }
        });
        primary.stop();
    });
}

/// A primary that was stopped (a host that slept, a VM that was paused) wakes up after the takeover. It may not go on.
#[test]
fn a_primary_that_wakes_up_late_is_fenced() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (primary, secondary) = lab.pair(KV);
        let load = Load::start(&lab, 1);
        load.wait_for_replies(500);
        primary.process.pause();
        let status = secondary.wait_until("the primary", |status| status.role == Role::Primary);
        load.wait_for_replies(500);
        let frames = lab.primary.guest_frames();
        primary.process.wake();
        let ended = primary.process.finish();
        assert_eq!(ended.code(), Some(1), "it was fenced: {ended}");
        assert_eq!(lab.primary.guest_frames(), frames, "it spoke for the guest again");
        load.wait_for_replies(500);
        must_be_alone(&lab, &secondary, status.term);
        load.finish().must_be_clean();
        secondary.stop();
    });
}
