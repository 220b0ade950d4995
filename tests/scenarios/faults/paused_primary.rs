//! The primary is stopped without being told (a host that slept, a virtual machine that was moved), and wakes up after the
//! takeover. It may not go on, and joins who does.

use echovisor_tests::{Account, Capture, KV, Lab, Load, Role, Scene, scenario};

use crate::{link_cut::must_be_fenced, times};

#[test]
fn a_primary_that_wakes_up_late_is_fenced() {
    scenario(|scene| {
        let mut account = Account::of("primary stopped, wakes up after the takeover");
        let mut escaped = 0;
        for _ in 0..times() {
            escaped += pause(scene, &mut account);
        }
        account.print();
        println!("frames of the old primary after the takeover: {escaped}");
    });
}

/// Gives the number of frames that the old primary let out after it was woken.
fn pause(scene: &Scene, account: &mut Account) -> usize {
    let lab = Lab::new(scene);
    let (primary, secondary) = lab.pair(KV);
    let term = primary.status().expect("a status").term;
    let captures = lab.sites().map(|site| Capture::start(&site.namespace, "tap0"));
    let load = Load::start(&lab, fastrand::u64(..));
    load.wait_for_replies(fastrand::u64(100..2000));
    let _ = load.longest_silence();

    primary.process.pause();
    secondary.wait_until("the primary", |status| status.role == Role::Primary);
    load.wait_for_replies(500);
    account.round(load.longest_silence(), &lab.must_be_alone(&secondary, term + 1));
    let woken = Capture::now();
    primary.process.wake();
    must_be_fenced(&primary);

    load.wait_for_replies(500);
    let [old, new] = captures.map(|capture| capture.incoming());
    let late: Vec<_> = old.iter().filter(|frame| frame.at >= woken).collect();
    for frame in &late {
        assert!(
            new.iter().any(|sent| sent.bytes == frame.bytes),
            "it said something that the new primary does not know"
        );
    }

    secondary.wait_until("protected", |status| status.protected);
    assert_eq!(primary.status().expect("a status").role, Role::Secondary);
    account.clients(&load.finish());
    secondary.stop();
    late.len()
}
