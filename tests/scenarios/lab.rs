//! The harness itself, with programs of the system in the place of nodes.

use std::process::Command;

use echovisor_tests::{CLIENT, GUEST, Lab, Process, program, scenario, wait_for};

#[test]
fn the_client_reaches_both_hosts_and_the_link_is_counted() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        for site in [&lab.primary, &lab.secondary] {
            site.namespace.ip(&format!("address add {GUEST}/24 dev br0"));
            let said = lab.client.run("ping", ["-c", "3", "-i", "0.2", GUEST]).output();
            assert!(said.contains("3 received"), "{said}");
            // The same address lives on the other host next, as after a takeover.
            site.namespace.ip(&format!("address del {GUEST}/24 dev br0"));
            lab.client.ip("neighbour flush dev eth0");
        }
        let before = lab.link_bytes();
        let said =
            lab.primary.namespace.run("ping", ["-c", "1", "-s", "1000", lab.secondary.address]).output();
        assert!(said.contains("1 received"), "{said}");
        assert!(lab.link_bytes() - before >= 2 * 1000, "the link carried a request and a reply");
        assert!(
            !lab.primary.namespace.run("ping", ["-c", "1", "-W", "1", CLIENT]).succeeded(),
            "the link leads on"
        );
    });
}

/// netem is there when `ECHOVISOR_NETEM` asks for it, and only then.
#[test]
fn the_network_is_as_bad_as_it_was_asked_to_be() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let asked = std::env::var("ECHOVISOR_NETEM").is_ok_and(|options| !options.is_empty());
        for (namespace, interface) in [(&lab.client, "eth0"), (&lab.primary.namespace, "link0")] {
            let said = namespace.run("tc", ["qdisc", "show", "dev", interface]).output();
            assert_eq!(said.contains("netem"), asked, "{said}");
            println!("{interface}: {}", said.trim());
        }
    });
}

#[test]
fn a_process_leaves_a_log_and_ends_with_its_handle() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let mut command = Command::new(program("ping"));
        command.arg("127.0.0.1");
        let process = Process::start(scene, "ping", &lab.client, &mut command);
        let replies = || lab.client.run("cat", ["/proc/net/snmp"]).output();
        wait_for("a reply in the log", || {
            process.said().contains("icmp_seq=1").then_some(()).ok_or(process.said())
        });
        drop(process);
        assert_eq!(replies(), replies(), "nobody pings any more");
    });
}

#[test]
fn a_small_disk_is_small() {
    scenario(|scene| {
        let disk = scene.small_disk(64 << 10);
        std::fs::write(disk.path.join("fits"), [0; 32 << 10]).expect("32 KiB fit into 64");
        std::fs::write(disk.path.join("too much"), [0; 64 << 10]).expect_err("96 KiB do not");
    });
}

/// Inside, the panic is not the expected one, so the test fails there; outside, that failure is the expected one.
#[test]
#[should_panic(
    expected = "failed; to see it again: tests/run --test lab -- --exact a_failure_inside_is_a_failure"
)]
fn a_failure_inside_is_a_failure() {
    scenario(|scene| {
        std::fs::remove_dir_all(scene.path("")).expect("nothing of this failure is worth keeping");
        panic!("on purpose");
    });
}
