//! What came of one run.

use std::time::Duration;

use serde::Serialize;

use super::{
    link::Link, load::Outcome, meter::Spent, policy::Policy, rerun::Rerun, workload::Workload,
    yardstick::Yardstick,
};

/// One run. Scripts rely on the names of the first twelve fields.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) policy: Policy,
    pub(super) workload: Workload,
    pub(super) round: u32,
    pub(super) requests_per_second: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) p999_us: Option<f64>,
    /// Both directions, with all headers.
    pub(super) link_bytes: u64,
    pub(super) guest_rx_bytes: u64,
    pub(super) guest_tx_bytes: u64,
    pub(super) primary_rss_bytes: u64,
    pub(super) secondary_rss_bytes: Option<u64>,
    /// How long all this took.
    pub(super) seconds: f64,
    /// What the link was limited to.
    pub(super) rate: String,
    /// Of the link, in each direction.
    pub(super) delay_ms: f64,
    /// Bytes of the log, as the primary counts them.
    pub(super) payload: u64,
    pub(super) primary_cpu_us_per_request: Option<f64>,
    pub(super) primary_cpu_seconds: f64,
    pub(super) requests: Option<u64>,
    /// Of these, those without an answer in the end.
    pub(super) unanswered: u64,
    /// What a guest that only computes has done.
    pub(super) iterations_per_second: Option<f64>,
    /// Parts of the log, each sent at once.
    pub(super) flushes: u64,
    /// Of the link, at the load `rate` under `replay`.
    pub(super) round_trip_us: Option<f64>,
    /// Of a thread, likewise.
    pub(super) wake_up_us: Option<f64>,
    /// How long the replay of the whole recording took, at the load `kv` under `recorded`.
    pub(super) replay_seconds: Option<f64>,
    /// How long the guest was busy meanwhile, likewise.
    pub(super) busy_seconds: Option<f64>,
    #[serde(skip)]
    pub(super) link: Link,
}

/// The memory that both nodes had in the end.
pub(super) struct Resident {
    pub(super) primary: u64,
    pub(super) secondary: Option<u64>,
}

/// All that was found out in a run.
pub(super) struct Findings {
    pub(super) outcome: Outcome,
    pub(super) spent: Spent,
    pub(super) resident: Resident,
    pub(super) yardstick: Option<Yardstick>,
    pub(super) rerun: Option<Rerun>,
}

impl Row {
    pub(super) fn new(
        (policy, workload, link, round): (Policy, Workload, &Link, u32),
        findings: &Findings,
    ) -> Row {
        let Findings { outcome, spent, resident, yardstick, rerun } = findings;
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let cpu = spent.cpu.as_secs_f64();
        let answered =
            outcome.requests.map(|requests| requests - outcome.unanswered).filter(|count| *count > 0);
        Row {
            policy,
            workload,
            round,
            requests_per_second: outcome.per_second,
            p50_us: outcome.latency.map(|latency| latency.p50),
            p99_us: outcome.latency.map(|latency| latency.p99),
            p999_us: outcome.latency.and_then(|latency| latency.p999),
            link_bytes: spent.link,
            guest_rx_bytes: spent.guest.received,
            guest_tx_bytes: spent.guest.sent,
            primary_rss_bytes: resident.primary,
            secondary_rss_bytes: resident.secondary,
            seconds: spent.time.as_secs_f64(),
            rate: link.rate.to_string(),
            delay_ms: link.delay.as_secs_f64() * 1e3,
            payload: spent.payload,
            primary_cpu_us_per_request: answered.map(|answered| cpu * 1e6 / answered as f64),
            primary_cpu_seconds: cpu,
            requests: outcome.requests,
            unanswered: outcome.unanswered,
            iterations_per_second: outcome.iterations_per_second,
            flushes: spent.flushes,
            round_trip_us: yardstick.as_ref().map(|yardstick| micros(yardstick.round_trip)),
            wake_up_us: yardstick.as_ref().map(|yardstick| micros(yardstick.wake_up)),
            replay_seconds: rerun.as_ref().map(|rerun| rerun.seconds),
            busy_seconds: rerun.as_ref().map(|rerun| rerun.busy),
            link: link.clone(),
        }
    }
}
