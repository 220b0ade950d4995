//! What was asked, and how long the answers took.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Latency, Outcome};
use crate::failure::Failure;

/// The longest response time that is told apart, µs.
const LONGEST: u64 = 600_000_000;

/// Requests and their response times.
pub(super) struct Asked {
    pub(super) requests: u64,
    unanswered: u64,
    /// How long all this took.
    pub(super) time: Duration,
    /// Microseconds.
    latencies: Histogram<u64>,
}

impl Asked {
    /// Nothing yet.
    pub(super) fn nothing() -> Result<Asked, Failure> {
        let latencies = Histogram::new_with_max(LONGEST, 3).map_err(|error| {
            Failure::new("cannot count response times", "see whether memory is exhausted").because(error)
        })?;
        Ok(Asked { requests: 0, unanswered: 0, time: Duration::ZERO, latencies })
    }

    /// A request has its reply.
    pub(super) fn replied(&mut self, after: Duration) {
        self.latencies.saturating_record(u64::try_from(after.as_micros()).unwrap_or(LONGEST));
    }

    /// A request that has no reply has waited at least so long. To leave it out would make the slowest system look best.
    pub(super) fn unanswered(&mut self, after: Duration) {
        self.unanswered += 1;
        self.replied(after);
    }

    /// How it went.
    pub(super) fn outcome(&self) -> Outcome {
        let quantile = |share| self.latencies.value_at_quantile(share) as f64;
        let latency = Latency { p50: quantile(0.5), p99: quantile(0.99), p999: Some(quantile(0.999)) };
        let answered = self.requests - self.unanswered;
        Outcome {
            requests: Some(self.requests),
            per_second: Some(answered as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)),
            latency: Some(latency).filter(|_| self.requests > 0),
            unanswered: self.unanswered,
            ..Outcome::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_an_answer_is_among_the_slowest() {
        let mut asked = Asked::nothing().expect("room for a histogram");
        (asked.requests, asked.time) = (1000, Duration::from_secs(2));
        (0..990).for_each(|_| asked.replied(Duration::from_micros(200)));
        (0..10).for_each(|_| asked.unanswered(Duration::from_secs(2)));
        let outcome = asked.outcome();
        assert_eq!((outcome.requests, outcome.unanswered), (Some(1000), 10));
        assert_eq!(outcome.per_second, Some(495.0));
        let latency = outcome.latency.expect("response times");
        assert_eq!(latency.p50, 200.0);
        assert_eq!(latency.p99, 200.0);
        let slowest = latency.p999.expect("enough of them");
        assert!((1_999_000.0..2_002_000.0).contains(&slowest), "{slowest}");
    }

    #[test]
    fn who_asks_nothing_learns_nothing() {
        let outcome = Asked::nothing().expect("room for a histogram").outcome();
        assert_eq!((outcome.per_second, outcome.latency), (Some(0.0), None));
    }
}
