//! While the primary serves, the secondary is the same machine, a little later.

use std::time::Instant;

use echovisor_tests::{KV, Lab, Load, Role, scenario};

/// Checkpoints that both sides must have compared. The guest must run for a second for each.
const CHECKPOINTS: usize = 3;

#[test]
fn the_secondary_follows_and_its_digests_agree() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (primary, secondary) = lab.pair(KV);
        let load = Load::start(&lab, 1);

        let next = |last: Option<u64>| {
            secondary.wait_until("past a checkpoint", |status| status.last_checkpoint > last)
        };
        let last = (1..CHECKPOINTS).fold(next(None), |status, _| next(status.last_checkpoint));
        assert_eq!((last.role, last.divergences), (Role::Secondary, 0));
        let serving =
            primary.wait_until("told of the last checkpoint", |s| s.last_checkpoint >= last.last_checkpoint);
        assert_eq!((serving.role, serving.divergences, serving.protected), (Role::Primary, 0, true));
        assert!(serving.acknowledged <= serving.watermark, "acknowledged what was never sent: {serving:?}");
        assert!(serving.lag_ms.is_finite() && serving.lag_ms >= 0.0, "{serving:?}");

        load.finish().must_be_clean();
        primary.wait_until("caught up with", |status| status.acknowledged == status.watermark);
        println!("primary   {serving:?}\nsecondary {last:?}");
    });
}

#[test]
fn stop_is_no_death() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (primary, secondary) = lab.pair(KV);
        Load::start(&lab, 2).finish().must_be_clean();
        primary.stop();
        let ended = secondary.process.finish();
        assert_eq!(ended.code(), Some(0), "the secondary did not take it for an end: {ended}");
        assert_eq!(lab.arbiter_record()["mode"], "ended");
        assert_eq!(lab.secondary.guest_frames(), 0, "the secondary sent something");
    });
}

/// What travels is what the guest has, not what it could have; and no client notices more than the pause for it.
#[test]
fn a_secondary_joins_a_working_guest() {
    scenario(|scene| {
        for (memory, size) in [("64M", 64_u64 << 20), ("1G", 1 << 30)] {
            let lab = Lab::new(scene);
            let primary = lab.primary_with(&lab.primary, KV, &["--memory", memory]);
            let mut first = lab.secondary(&lab.secondary, &lab.primary);
            primary.wait_until("protected", |status| status.protected);
            let load = Load::start(&lab, 3);
            load.wait_for_replies(1000);
            first.process.kill();
            let before = primary.wait_until("alone", |status| !status.protected);
            let _ = load.longest_silence();
            let began = Instant::now();
            let second = lab.secondary(&lab.secondary, &lab.primary);
            let after = primary.wait_until("protected again", |status| status.protected);
            let (took, silence) = (began.elapsed(), load.longest_silence());
            load.wait_for_replies(1000);
            load.finish().must_be_clean();
            let sent = after.link_bytes - before.link_bytes;
            println!(
                "{memory}: joined in {took:.1?}, {sent} bytes on the link, log included, silence {silence:.1?}"
            );
            assert!(sent < size / 4, "{sent} bytes on the link for a guest of {size} that uses little");
            second.wait_until("eligible", |status| status.protected);
            primary.stop();
        }
    });
}
