//! A secondary that is alive and says so, but does not get on. It slows the guest down for a while, then it is dropped.

use echovisor_tests::{Account, KV, Lab, Load, Role, scenario, wait_for};

use crate::times;

/// Its replaying thread stands still; its other threads acknowledge and answer heartbeats.
#[test]
fn a_secondary_that_stalls_is_dropped() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (primary, secondary) = lab.pair(KV);
        let term = primary.status().expect("a status").term;
        let load = Load::start(&lab, fastrand::u64(..));
        let mut account = Account::of("secondary stalls, but answers");
        for round in 0..times() {
            load.wait_for_replies(500);
            let _ = load.longest_silence();
            let frozen = secondary.process.freeze_thread("vcpu");
            primary.wait_until("held up", |status| status.lag_ms > 500.0 && status.protected);
            // It joins anew with another thread, and may be so quick that nobody sees the primary alone.
            wait_for("the end of the primary's patience", || {
                let said = primary.process.said();
                let all =
                    ["too far behind", "goes on unprotected"].map(|what| said.matches(what).count() as u64);
                if all.iter().all(|count| *count > round) { Ok(()) } else { Err(format!("{all:?} times")) }
            });
            let status = primary.wait_until("protected by the same one again", |status| status.protected);
            assert_eq!(status.term, term, "nobody has taken over: {status:?}");
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
            drop(frozen);
        }
        assert_eq!(secondary.status().expect("a status").role, Role::Secondary);
        assert_eq!(lab.secondary.guest_frames(), 0, "two nodes speak for the guest");
        account.clients(&load.finish());
        account.print();
        primary.stop();
    });
}

/// All of it stands still for longer than the primary waits. When it wakes up it finds that the guest went on without it.
#[test]
fn a_secondary_that_sleeps_is_dropped() {
    scenario(|scene| {
        let mut account = Account::of("secondary stopped, wakes up later");
        let lab = Lab::new(scene);
        let (primary, secondary) = lab.pair(KV);
        let term = primary.status().expect("a status").term;
        let load = Load::start(&lab, fastrand::u64(..));
        for _ in 0..times() {
            load.wait_for_replies(fastrand::u64(100..2000));
            let _ = load.longest_silence();
            secondary.process.pause();
            let status = lab.must_be_alone(&primary, term);
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
            secondary.process.wake();
            primary.wait_until("protected by the same one again", |status| status.protected);
        }
        assert_eq!(lab.secondary.guest_frames(), 0, "two nodes speak for the guest");
        account.clients(&load.finish());
        account.print();
        primary.stop();
    });
}
