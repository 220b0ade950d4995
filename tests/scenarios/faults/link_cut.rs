//! The link is cut while both nodes live, and neither is told. Only the arbiter can say which of them goes on.

use echovisor_tests::{Account, Capture, Frame, KV, Lab, Load, Node, Role, Scene, Site, scenario, wait_for};

use crate::times;

#[test]
fn a_link_that_is_cut_leaves_one_of_two() {
    scenario(|scene| {
        let mut account = Account::of("link cut, both alive");
        let mut takeovers = 0;
        for _ in 0..times() {
            takeovers += u64::from(cut(scene, &mut account, |lab, _, _| lab.cut_link()) == Winner::Secondary);
        }
        account.print();
        println!("the secondary won {takeovers} times of {}", times());
    });
}

/// Nor can anybody go on while the arbiter is gone, too.
#[test]
fn a_link_that_is_cut_while_the_arbiter_is_gone_leaves_none() {
    scenario(|scene| {
        let mut account = Account::of("link cut and arbiter gone, both alive");
        for _ in 0..times() {
            cut(scene, &mut account, cut_everything);
        }
        account.print();
    });
}

fn cut_everything(lab: &Lab, primary: &Node, secondary: &Node) {
    lab.hide_arbiter();
    lab.cut_link();
    for node in [primary, secondary] {
        node.wait_until("waiting for the arbiter", |status| status.more.contains_key("arbiter"));
    }
    let [spoken, silent] = lab.sites().map(Site::guest_frames);
    let asked = lab.client.traffic("eth0").sent;
    wait_for("clients that ask again", || {
        let more = lab.client.traffic("eth0").sent - asked;
        if more > 0 { Ok(()) } else { Err("none does".to_owned()) }
    });
    assert_eq!(lab.sites().map(Site::guest_frames), [spoken, silent], "somebody spoke without the arbiter");
    assert_eq!(silent, 0, "the secondary spoke for the guest");
    lab.show_arbiter();
}

/// Who went on with the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Winner {
    Primary,
    Secondary,
}

/// Does `fault` to two nodes under load, and sees who goes on.
fn cut(scene: &Scene, account: &mut Account, fault: impl FnOnce(&Lab, &Node, &Node)) -> Winner {
    let lab = Lab::new(scene);
    let (primary, secondary) = lab.pair(KV);
    let term = primary.status().expect("a status").term;
    let captures = lab.sites().map(|site| Capture::start(&site.namespace, "tap0"));
    let load = Load::start(&lab, fastrand::u64(..));
    load.wait_for_replies(500);
    let _ = load.longest_silence();

    fault(&lab, &primary, &secondary);
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
            must_be_fenced(&primary);
            let [old, new] = captures.map(|capture| capture.incoming());
            must_be_silent_before(&old, &new);
            lab.mend_link();
            (secondary, primary)
        }
    };
    survivor.wait_until("protected again", |status| status.protected);
    assert_eq!(other.status().expect("a status").role, Role::Secondary);
    account.clients(&load.finish());
    survivor.stop();
    winner
}

/// A primary that has lost at the arbiter becomes a secondary.
pub(crate) fn must_be_fenced(primary: &Node) {
    primary.wait_until("a secondary", |status| status.role == Role::Secondary);
}

/// One that does not know where to join says so, and ends.
#[test]
fn a_fenced_primary_whose_successor_does_not_listen_says_what_to_do() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let primary = lab.primary(&lab.primary, KV);
        let join = ["--join".to_owned(), format!("{}:7000", lab.primary.address)];
        let secondary = lab.node(&lab.secondary, "secondary", &[&join]);
        primary.wait_until("protected", |status| status.protected);
        primary.process.pause();
        secondary.wait_until("the primary", |status| status.role == Role::Primary);
        primary.process.wake();
        let ended = primary.process.finish();
        assert_eq!(ended.code(), Some(1), "it was fenced: {ended}");
        for part in ["not the primary any more", "hint: join it"] {
            assert!(ended.stdout.contains(part), "`{part}` is not what it says: {ended}");
        }
        secondary.stop();
    });
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
