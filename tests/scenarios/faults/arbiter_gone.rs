//! The arbiter gives no answer. Nothing changes hands until it does: who would need its word waits, and keeps the guest.

use echovisor_tests::{Account, Capture, KV, Lab, Load, Role, Scene, scenario, wait_for};

use crate::times;

/// Without a peer and an arbiter the primary cannot know whether it is still the primary.
#[test]
fn without_arbiter_and_secondary_effects_wait() {
    scenario(|scene| {
        let mut account = Account::of("arbiter gone, then the secondary killed");
        for _ in 0..times() {
            lose_secondary(scene, &mut account, |lab| lab.hide_arbiter(), |lab, ()| lab.show_arbiter());
        }
        account.print();
    });
}

/// A node that is stopped while it changes the record holds the lock for as long as it stands still.
#[test]
fn while_another_holds_the_lock_effects_wait() {
    scenario(|scene| {
        let mut account = Account::of("arbiter locked, then the secondary killed");
        for _ in 0..times() {
            lose_secondary(scene, &mut account, |lab| lab.lock_arbiter(), |_, lock| drop(lock));
        }
        account.print();
    });
}

fn lose_secondary<T>(
    scene: &Scene,
    account: &mut Account,
    take_arbiter: impl FnOnce(&Lab) -> T,
    give_back: impl FnOnce(&Lab, T),
) {
    let lab = Lab::new(scene);
    let (primary, mut secondary) = lab.pair(KV);
    let term = primary.status().expect("a status").term;
    let capture = Capture::start(&lab.primary.namespace, "tap0");
    let load = Load::start(&lab, fastrand::u64(..));
    let taken = take_arbiter(&lab);
    // As long as both live nobody needs it.
    load.wait_for_replies(1000);
    let _ = load.longest_silence();

    secondary.process.kill();
    let waiting = primary.wait_until("waiting for the arbiter", |status| {
        status.more.contains_key("arbiter") && status.more["held"] != 0
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

    give_back(&lab, taken);
    let status = lab.must_be_alone(&primary, term);
    load.wait_for_replies(500);
    account.round(load.longest_silence(), &status);
    assert!(!status.more.contains_key("arbiter"), "{status:?}");
    let _secondary = lab.secondary(&lab.secondary, &lab.primary);
    primary.wait_until("protected", |status| status.protected);
    account.clients(&load.finish());
    primary.stop();
}

#[test]
fn without_arbiter_nobody_takes_over() {
    scenario(|scene| {
        let mut account = Account::of("arbiter gone, then the primary killed");
        for _ in 0..times() {
            lose_primary(scene, &mut account);
        }
        account.print();
    });
}

fn lose_primary(scene: &Scene, account: &mut Account) {
    let lab = Lab::new(scene);
    let (mut primary, secondary) = lab.pair(KV);
    let term = primary.status().expect("a status").term;
    let load = Load::start(&lab, fastrand::u64(..));
    load.wait_for_replies(1000);
    let _ = load.longest_silence();
    lab.hide_arbiter();
    primary.process.kill();
    let waiting =
        secondary.wait_until("waiting for the arbiter", |status| status.more.contains_key("arbiter"));
    assert_eq!(
        (waiting.role, &waiting.more["mode"]),
        (Role::Secondary, &"taking over".into()),
        "{waiting:?}"
    );
    let said = secondary.process.said();
    assert!(said.contains("no answer from the arbiter"), "{said}");
    assert_eq!(lab.secondary.guest_frames(), 0, "it took over without the arbiter");

    lab.show_arbiter();
    let status = lab.must_be_alone(&secondary, term + 1);
    load.wait_for_replies(500);
    account.round(load.longest_silence(), &status);
    account.clients(&load.finish());
    secondary.stop();
}
