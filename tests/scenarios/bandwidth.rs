//! What replication sends, compared with what the guest receives. These are counts, not times, so they can be asserted; the
//! figures for people are made by the `measure` bench.

use echovisor_tests::{KV, Lab, scenario, size};

/// Payload of the log for each byte of frames that the guest received, at 50 clients with random keys and values.
const PAYLOAD_MAX: f64 = 0.4;

#[test]
fn the_log_is_smaller_than_the_traffic() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (primary, _secondary) = lab.pair(KV);
        drop(lab.connect(6379));
        let quiet = primary.wait_until("idle", |status| status.acknowledged == status.watermark);
        let link = lab.link_bytes();
        let requests = size("ECHOVISOR_REQUESTS", 5000) * 4;
        lab.redis_benchmark(&format!("-t set,get -c 50 -r 1000000000 -d 16 -n {requests}"));
        let busy = primary.wait_until("idle", |status| status.acknowledged == status.watermark);
        let link = lab.link_bytes() - link;

        let received = busy.guest_rx_bytes - quiet.guest_rx_bytes;
        let payload = busy.log_bytes - quiet.log_bytes;
        assert!(
            received > requests * 60,
            "the guest received {received} bytes for {requests} requests of each kind"
        );
        assert!(payload > 0 && link > payload, "payload {payload}, link {link}: the counters can't be right");
        let ratio = |bytes: u64| bytes as f64 / received as f64;
        println!(
            "received {received}, payload {payload} ({:.3}), link {link} ({:.3})",
            ratio(payload),
            ratio(link)
        );
        assert!(ratio(payload) <= PAYLOAD_MAX, "{payload} bytes of log for {received} received");
    });
}

/// Pages fill a thin link for longer than a silent node is trusted to be alive. What says that it is goes between them. (A link that is
/// full also loses packets, and TCP may need some tenths of a second to get over that: so long must be trusted.)
#[test]
fn who_waits_for_pages_is_not_taken_for_dead() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let whole_pages = ["--policy", "checkpoint", "--delta-compression", "none"];
        let (primary, secondary) = lab.pair_with(KV, &whole_pages);
        drop(lab.connect(6379));
        lab.shape_link("10mbit");
        let before = lab.link_bytes();
        lab.redis_benchmark("-t set -c 50 -r 200000 -d 16 -n 500");
        let sent = lab.link_bytes() - before;
        assert!(sent > 2_000_000, "{sent} bytes are sent too soon to be waited for");
        for node in [&primary, &secondary] {
            let said = node.process.said();
            assert!(!said.contains("lost") && !said.contains("silent"), "{said}");
        }
    });
}
