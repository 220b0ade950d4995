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
