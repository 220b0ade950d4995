//! What came of one run.

use serde::Serialize;

use super::{link::Link, load::Outcome, meter::Spent, policy::Policy, workload::Workload};

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
    #[serde(skip)]
    pub(super) link: Link,
}

/// The memory that both nodes had in the end.
pub(super) struct Resident {
    pub(super) primary: u64,
    pub(super) secondary: Option<u64>,
}

impl Row {
    pub(super) fn new(
        (policy, workload, link, round): (Policy, Workload, &Link, u32),
        outcome: &Outcome,
        spent: &Spent,
        resident: &Resident,
    ) -> Row {
        let cpu = spent.cpu.as_secs_f64();
        let answered = outcome.requests.map(|requests| requests - outcome.unanswered);
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
            primary_cpu_us_per_request: answered.map(|answered| cpu * 1e6 / answered.max(1) as f64),
            primary_cpu_seconds: cpu,
            requests: outcome.requests,
            unanswered: outcome.unanswered,
            iterations_per_second: outcome.iterations_per_second,
            link: link.clone(),
        }
    }
}
