//! No fault: the operator has the roles swapped, there and back again, and the clients notice a pause at most.

use std::{fs, process::Command, time::Instant};

use echovisor_tests::{Account, Filling, KV, Lab, Load, Node, Role, Site, echovisor, scenario, size};

/// Asks a node for a switchover, as an operator does.
fn promote(node: &Node) -> Result<(), String> {
    let mut command = Command::new(echovisor());
    let output = command.args(["promote", "--control"]).arg(node.control()).output();
    let output = output.expect("echovisor can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(said),
        _ => panic!("{}: {said}", output.status),
    }
}

#[test]
fn roles_swapped_there_and_back_again_cost_nothing() {
    scenario(|scene| {
        let mut random = scene.random();
        let lab = Lab::new(scene);
        let (primary, secondary) = lab.pair(KV);
        let mut term = primary.status().expect("a status").term;
        let mut nodes = [(primary, &lab.primary), (secondary, &lab.secondary)];
        // What has been said for the guest where the secondary lives.
        let mut silent = 0;
        let mut unprotected = Vec::new();
        let load = Load::start(&lab, random.u64(..));
        let mut account = Account::of("planned switchover");
        for _ in 0..size("ECHOVISOR_SWITCHOVERS", 4) {
            load.wait_for_replies(random.u64(100..2000));
            let _ = load.longest_silence();
            assert_eq!(nodes[1].1.guest_frames(), silent, "two nodes speak for the guest");
            // Either of them may be asked.
            promote(&nodes[random.usize(..2)].0).expect("a switchover");
            let switched = Instant::now();
            nodes.swap(0, 1);
            term += 1;
            let status = nodes[0].0.wait_until("the primary", |status| status.role == Role::Primary);
            assert_eq!((status.term, status.divergences), (term, 0), "{status:?}");
            nodes[1].0.wait_until("a secondary", |status| status.role == Role::Secondary);
            silent = nodes[1].1.guest_frames();
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
            must_be_protected(&nodes[0].0, &nodes[1].0);
            unprotected.push(switched.elapsed());
            // Whoever has given its guest up has given its machine up as well.
            assert_eq!(nodes.each_ref().map(|(node, _)| virtual_machines(node)), [1, 1]);
        }
        account.clients(&load.finish());
        account.print();
        unprotected.sort();
        println!("protected again after {:?} in the median", unprotected[unprotected.len() / 2]);
        let [(primary, _), (secondary, _)] = nodes;
        primary.stop();
        assert_eq!(secondary.process.finish().code(), Some(0), "it did not take the end for a death");
    });
}

/// How many virtual machines a node has.
fn virtual_machines(node: &Node) -> usize {
    let folder = node.process.folder().expect("a running process").join("fd");
    let files = fs::read_dir(folder).expect("a running process").flatten();
    let opened = files.filter_map(|file| fs::read_link(file.path()).ok());
    opened.filter(|file| file.to_string_lossy().contains("kvm-vm")).count()
}

/// Both nodes say so.
fn must_be_protected(primary: &Node, secondary: &Node) {
    primary.wait_until("protected again", |status| status.protected);
    secondary.wait_until("fit to take over", |status| status.protected && status.role == Role::Secondary);
}

/// A node that was primary is a secondary like any other: it takes over when its successor dies.
#[test]
fn who_has_handed_the_guest_over_can_take_it_over() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (old, mut new) = lab.pair(KV);
        let term = old.status().expect("a status").term;
        let load = Load::start(&lab, fastrand::u64(..));
        load.wait_for_replies(500);
        promote(&new).expect("a switchover");
        must_be_protected(&new, &old);
        load.wait_for_replies(500);
        new.process.kill();
        lab.must_be_alone(&old, term + 2);
        load.wait_for_replies(500);
        load.finish().must_be_clean();
        old.stop();
    });
}

/// What its memory holds already does not travel: only what the guest has written since.
#[test]
fn who_has_handed_the_guest_over_is_not_sent_what_it_has() {
    const FILLING: usize = 8 << 20;
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (old, new) = lab.pair(KV);
        let filling = Filling::of(&lab, FILLING);
        promote(&old).expect("a switchover");
        must_be_protected(&new, &old);
        let sent = new.status().expect("a status").link_bytes;
        println!("{sent} bytes on the link, log included");
        assert!(sent < FILLING as u64 / 4, "{sent} bytes on the link for what was there");
        promote(&new).expect("a switchover");
        filling.must_be_there(&lab);
        old.stop();
    });
}

#[test]
fn who_cannot_switch_over_says_why() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let alone = lab.node(&lab.primary, "primary", &[&KV.words(), &listen(&lab.primary)]);
        alone.wait_until("up", |status| status.role == Role::Primary);
        must_refuse(&alone, "has no secondary");

        let deaf = lab.unprotected(&lab.secondary, KV);
        deaf.wait_until("up", |status| status.role == Role::Primary);
        must_refuse(&deaf, "which does not listen");
        deaf.stop();
        let stranger = lab.node(&lab.secondary, "secondary", &[&join_nobody()]);
        stranger.wait_until("up", |status| status.role == Role::Secondary);
        must_refuse(&stranger, "has no primary");
    });
}

fn must_refuse(node: &Node, why: &str) {
    let said = promote(node).expect_err("a refusal");
    for part in [why, "the roles stay as they are", "hint: wait until"] {
        assert!(said.contains(part), "`{part}` is not what it says: {said}");
    }
}

fn listen(site: &Site) -> [String; 2] {
    ["--listen".to_owned(), format!("{}:7000", site.address)]
}

fn join_nobody() -> [String; 2] {
    ["--join", "unix:/nowhere"].map(String::from)
}

/// The guest does not stand still for long because of a secondary that does not answer, and stays where it is.
#[test]
fn a_secondary_that_is_stopped_is_handed_nothing() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (primary, secondary) = lab.pair(KV);
        let term = primary.status().expect("a status").term;
        let load = Load::start(&lab, fastrand::u64(..));
        load.wait_for_replies(500);
        secondary.process.pause();
        must_refuse(&primary, "the secondary was lost");
        lab.must_be_alone(&primary, term);
        load.wait_for_replies(500);
        secondary.process.wake();
        must_be_protected(&primary, &secondary);
        assert_eq!(lab.secondary.guest_frames(), 0, "the secondary spoke for the guest");
        promote(&primary).expect("a switchover");
        load.wait_for_replies(500);
        load.finish().must_be_clean();
        secondary.stop();
    });
}

/// However far the switchover is, the other node has all that it takes.
#[test]
fn a_primary_killed_in_a_switchover_costs_nothing() {
    scenario(|scene| {
        let mut random = scene.random();
        let mut account = Account::of("primary killed in a switchover");
        for _ in 0..size("ECHOVISOR_FAULTS", 2) {
            let lab = Lab::new(scene);
            let (mut primary, secondary) = lab.pair(KV);
            let load = Load::start(&lab, random.u64(..));
            load.wait_for_replies(500);
            let _ = load.longest_silence();
            let mut command = Command::new(echovisor());
            let asking = command.args(["promote", "--control"]).arg(primary.control()).spawn();
            let mut asking = asking.expect("echovisor can be started");
            load.wait_for_replies(random.u64(..100));
            primary.process.kill();
            // What it says depends on how far it was.
            let _ = asking.wait();
            let status = secondary.wait_until("the primary", |status| status.role == Role::Primary);
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
            account.clients(&load.finish());
            secondary.stop();
        }
        account.print();
    });
}
