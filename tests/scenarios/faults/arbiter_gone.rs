//! The arbiter gives no answer. Nothing changes hands until it does: who would need its word waits, and keeps the guest.

use echovisor_tests::{Account, Capture, KV, Lab, Load, Role, Scene, scenario, wait_for};

use crate::times;

/// Without a peer and an arbiter the primary cannot know whether it is still the primary.
#[test]
fn without_arbiter_and_secondary_effects_wait() {
    scenario(|scene| {
        let mut account = Account::of("arbiter gone, then the secondary killed");
        for _ in 0..times() {
            lose_secondary(scene, &mut account);
        }
        account.print();
    });
}

fn lose_secondary(scene: &Scene, account: &mut Account) {
    let lab = Lab::new(scene);
    let (primary, mut secondary) = lab.pair(KV);
    let term = primary.status().expect("a status").term;
    let capture = Capture::start(&lab.primary.namespace, "tap0");
    let load = Load::start(&lab, fastrand::u64(..));
    lab.hide_arbiter();
    // As long as both live nobody needs it.
    load.wait_for_replies(1000);
    let _ = load.longest_silence();

    secondary.process.kill();
    let waiting = primary.wait_until("waiting for the arbiter", |status| {
        status.more["mode"] == "leaving" && status.more["held"] != 0
    });
    assert_eq!((waiting.role, waiting.term, waiting.protected), (Role::Primary, term, false), "{waiting:?}");
    let frames = capture.incoming().len();
    // The clients ask again, and again, and the guest hears them.
    let asked = |capture: &Capture| capture.frames().iter().filter(|frame| frame.outgoing).count();
    let before = asked(&capture);
    wait_for("clients that ask again", || {
        let more = asked(&capture) - before;
        if more >= 10 { Ok(()) } else { Err(format!("{more} frames")) }
    });
    assert_eq!(capture.incoming().len(), frames, "an effect left without anybody's acknowledgement");

    lab.show_arbiter();
    let status = lab.must_be_alone(&primary, term);
    load.wait_for_replies(500);
    account.round(load.longest_silence(), &status);
    let _secondary = lab.secondary(&lab.secondary, &lab.primary);
    primary.wait_until("protected", |status| status.protected);
    account.clients(&load.finish());
    primary.stop();
}
