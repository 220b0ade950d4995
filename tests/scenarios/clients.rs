//! Programs that people use, against the guest, before and after a takeover.

use std::io::Write;

use echovisor_tests::{GUEST, KV, Lab, Process, Role, program, scenario, wait_for};

/// Lets every client do its work once.
fn everyone_is_served(lab: &Lab) {
    let redis = |words: &str| lab.client.run("redis-cli", format!("-h {GUEST} {words}").split(' ')).output();
    assert_eq!(redis("ping"), "PONG\n");
    assert_eq!(redis("set greeting hello"), "OK\n");
    assert_eq!(redis("append greeting -again"), "11\n");
    assert_eq!(redis("get greeting"), "hello-again\n");
    assert!(redis("info").contains("redis_version"), "no version in INFO");

    let rows = lab.redis_benchmark("-t ping_mbulk,set,get,incr -n 1000 -c 10 -P 4");
    assert_eq!(rows.len(), 4, "{rows:?}");

    let curl = |path: &str| lab.client.run("curl", ["-sS", "--fail", "--max-time", "60", path]).output();
    let url = |path: &str| format!("http://{GUEST}{path}");
    let count = || curl(&url("/counter")).trim().parse::<u64>().expect("/counter is a number");
    let first = count();
    assert_eq!(count(), first + 1, "/counter counts requests");
    assert!(!curl(&url("/")).is_empty());

    let said =
        lab.client.run("wrk", ["-t", "1", "-c", "4", "-d", "1s", "--timeout", "60s", &url("/")]).output();
    assert!(
        said.contains("requests in") && !said.contains("Socket errors") && !said.contains("Non-2xx"),
        "{said}"
    );
    assert!(!said.contains(" 0 requests in"), "{said}");

    let said = lab.client.run("ping", ["-c", "3", "-i", "0.2", "-W", "60", GUEST]).output();
    let arrived = match lab.loses_packets() {
        true => !said.contains(" 100% packet loss"),
        false => said.contains(" 0% packet loss"),
    };
    assert!(arrived, "{said}");
}

#[test]
fn real_clients_before_and_after_a_takeover() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (mut primary, secondary) = lab.pair(KV);
        drop(lab.connect(6379));
        everyone_is_served(&lab);

        // One connection that lives through it, with a person at the keyboard.
        let mut command = std::process::Command::new(program("redis-cli"));
        command.args(["-h", GUEST]);
        let mut person = Process::start(scene, "redis-cli", &lab.client, &mut command);
        let mut keyboard = person.input();
        let mut ask = |question: &str, answer: &str| {
            writeln!(keyboard, "{question}").expect("redis-cli reads");
            let what = format!("redis-cli to answer {answer}");
            wait_for(&what, || if person.said().contains(answer) { Ok(()) } else { Err(person.said()) });
        };
        ask("set kept before-the-takeover", "OK");
        let connections = lab.client_sockets();

        primary.process.kill();
        secondary.wait_until("the primary", |status| status.role == Role::Primary);
        ask("get kept", "before-the-takeover");
        assert_eq!(lab.client_sockets(), connections, "redis-cli is on another connection");
        assert!(
            !person.said().contains("not connected") && !person.said().contains("Error"),
            "{}",
            person.said()
        );

        everyone_is_served(&lab);
        secondary.stop();
    });
}
