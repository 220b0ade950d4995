//! The link is cut while both nodes live, and neither is told. Only the arbiter can say which of them goes on.

use echovisor_tests::{Account, Capture, Frame, KV, Lab, Load, Node, Role, Scene, scenario, wait_for};

use crate::times;

#[test]
fn a_link_that_is_cut_leaves_one_of_two() {
    scenario(|scene| {
        let mut account = Account::of("link cut, both alive");
        let mut takeovers = 0;
        for _ in 0..times() {
            takeovers += u64::from(cut(scene, &mut account) == Winner::Secondary);
        }
        account.print();
        println!("the secondary won {takeovers} times of {}", times());
    });
}

/// Who went on with the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Winner {
    Primary,
    Secondary,
}

fn cut(scene: &Scene, account: &mut Account) -> Winner {
    let lab = Lab::new(scene);
    let (primary, secondary) = lab.pair(KV);
    let term = primary.status().expect("a status").term;
    let captures = lab.sites().map(|site| Capture::start(&site.namespace, "tap0"));
    let load = Load::start(&lab, fastrand::u64(..));
    load.wait_for_replies(500);
    let _ = load.longest_silence();

    lab.cut_link();
    let record = wait_for("the arbiter's word", || {
        let record = lab.arbiter_record();
        if record["mode"] == "solo" { Ok(record) } else { Err(record.to_string()) }
    });
    load.wait_for_replies(500);
    let silence = load.longest_silence();
    let winner = if record["term"] == term { Winner::Primary } else { Winner::Secondary };
    let (survivor, other) = match winner {
        Winner::Primary => {
            account.round(silence, &lab.must_be_alone(&primary, term));
            lab.mend_link();
            assert!(captures[1].incoming().is_empty(), "the secondary spoke for the guest");
            (primary, secondary)
        }
        Winner::Secondary => {
            account.round(silence, &lab.must_be_alone(&secondary, term + 1));
            must_be_fenced(primary);
            let [old, new] = captures.map(|capture| capture.incoming());
            must_be_silent_before(&old, &new);
            lab.mend_link();
            let joiner = lab.secondary(&lab.primary, &lab.secondary);
            (secondary, joiner)
        }
    };
    survivor.wait_until("protected again", |status| status.protected);
    assert_eq!(other.status().expect("a status").role, Role::Secondary);
    account.clients(&load.finish());
    survivor.stop();
    winner
}

/// A primary that has lost at the arbiter ends, and says why and what to do.
pub(crate) fn must_be_fenced(primary: Node) {
    let ended = primary.process.finish();
    assert_eq!(ended.code(), Some(1), "it was fenced: {ended}");
    for part in ["not the primary any more", "hint: join it"] {
        assert!(ended.stdout.contains(part), "`{part}` is not what it says: {ended}");
    }
}

/// Whoever spoke for the guest before said its last word before the first of the other.
fn must_be_silent_before(old: &[Frame], new: &[Frame]) {
    let (last, first) = (old.last().expect("it served"), new.first().expect("it serves"));
    assert!(
        last.at < first.at,
        "both spoke for the guest: the old one {:?} after the new one",
        last.at - first.at
    );
}
