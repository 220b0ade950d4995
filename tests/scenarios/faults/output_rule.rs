//! What the guest says is heard only once the secondary holds what led to it: proven from outside, by what passes the wires.

use std::time::Duration;

use echovisor_tests::{Account, Capture, KV, Lab, Load, Node, Scene, Status, scenario, wait_for};

use crate::{times, wire::Wire};

/// The link's port.
const PORT: u16 = 7000;

/// How long the nodes trust each other here: the secondary stands still for a while, and must not be given up.
const PATIENCE: [&str; 2] = ["--suspicion", "4s"];

/// The secondary stands still, so nothing is acknowledged.
#[test]
fn without_acknowledgements_nothing_leaves() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let primary = lab.primary_with(&lab.primary, KV, &PATIENCE);
        let secondary = lab.secondary_with(&lab.secondary, &lab.primary, &PATIENCE);
        primary.wait_until("protected", |status| status.protected);
        let capture = Capture::start(&lab.primary.namespace, "tap0");
        let load = Load::start(&lab, fastrand::u64(..));
        let mut account = Account::of("output held");
        for _ in 0..times() {
            load.wait_for_replies(fastrand::u64(100..2000));
            let _ = load.longest_silence();
            secondary.process.pause();
            let status = must_hold(&primary, &capture);
            secondary.process.wake();
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
        }
        account.clients(&load.finish());
        account.print();
        primary.stop();
    });
}

/// Watches a primary whose secondary has just stopped, until the clients have asked again and again for what is held.
fn must_hold(primary: &Node, capture: &Capture) -> Status {
    let mut acknowledged = None;
    // What was acknowledged before the secondary stopped may still be on its way.
    wait_for("the last acknowledgement", || {
        let status = primary.status()?;
        let last = acknowledged.replace(status.acknowledged);
        if status.more["held"] != 0 && last == acknowledged { Ok(()) } else { Err(format!("{status:?}")) }
    });
    let since = Capture::now();
    wait_for("clients that ask again", || {
        let frames = capture.frames();
        let (asked, said): (Vec<_>, Vec<_>) =
            frames.into_iter().filter(|frame| frame.at > since).partition(|frame| frame.outgoing);
        // Asked after the capture, so it was protected, and its effects held, all the while.
        let status = primary.status()?;
        assert!(status.protected, "it has given its secondary up before anything could be seen: {status:?}");
        assert!(said.is_empty(), "{} frames left that nobody has acknowledged: {status:?}", said.len());
        if asked.len() >= 3 && status.more["held"] != 0 {
            Ok(status)
        } else {
            Err(format!("{} frames", asked.len()))
        }
    })
}

/// Whoever sees both wires finds, for each frame of the guest, the acknowledgement that allowed it to leave, and finds it
/// earlier. The position of a frame is on no wire: it is found by executing what the link carried, the state and the log.
#[test]
fn every_frame_leaves_after_its_acknowledgement() {
    scenario(|scene| {
        let mut waited = Vec::new();
        for _ in 0..times() {
            waited.extend(watch_both_wires(scene));
        }
        waited.sort();
        println!(
            "{} frames, none before its acknowledgement; after it, median {:?}, at least {:?}",
            waited.len(),
            waited[waited.len() / 2],
            waited[0]
        );
    });
}

/// For each frame of the guest, how long after the acknowledgement it left.
fn watch_both_wires(scene: &Scene) -> Vec<Duration> {
    let lab = Lab::new(scene);
    let host = &lab.primary.namespace;
    // Both nodes on one host: there the link is plain text, and one clock sees it all.
    host.ip("tuntap add tap1 mode tap");
    host.ip("link set tap1 up master br0");
    let [link, network] = ["lo", "tap0"].map(|interface| Capture::start(host, interface));
    let arbiter = format!("file:{}", lab.arbiter().display());
    let start = |command: &str, more: &[&str]| {
        let common = ["--arbiter", &arbiter];
        let arguments: Vec<String> = common.iter().chain(more).map(ToString::to_string).collect();
        Node::start(scene, host, command, &arguments)
    };
    let address = format!("127.0.0.1:{PORT}");
    let guest = ["--guest", KV.name, "--guest-args", KV.arguments, "--wait-for-secondary"];
    let primary = start("primary", &[&guest[..], &["--net", "tap:tap0", "--listen", &address]].concat());
    primary.wait_until("waiting for a secondary", |status| !status.protected);
    let secondary = start("secondary", &["--net", "tap:tap1", "--join", &address]);
    primary.wait_until("protected", |status| status.protected);
    let load = Load::start(&lab, fastrand::u64(..));
    load.wait_for_replies(20_000);
    load.finish().must_be_clean();
    primary.stop();
    let _ = secondary.process.finish().output();

    let Wire { log, acknowledged } = Wire::new(&link.incoming(), PORT);
    let released = network.incoming();
    let made = log.frames();
    assert!(made.len() > 500, "only {} frames", made.len());
    assert_eq!(made.len(), released.len(), "every frame leaves once");
    let frames = made.into_iter().zip(&released).enumerate();
    frames
        .map(|(number, ((position, bytes), left))| {
            assert_eq!(*bytes, *left.bytes, "frame {number} is another one");
            let allowed = acknowledged
                .at(position)
                .unwrap_or_else(|| panic!("frame {number}, of position {position}, was never acknowledged"));
            left.at.checked_sub(allowed).unwrap_or_else(|| {
                panic!("frame {number}, of position {position}, left {:?} too early", allowed - left.at)
            })
        })
        .collect()
}
