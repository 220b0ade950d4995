//! How far the load is.

use std::time::{Duration, Instant};

use super::DemoArgs;

/// Time of the load, if nothing else is asked for.
const SECONDS: u32 = 5;

/// A load that is bounded by requests, by time, or by both. The time without a primary is no part of it.
pub(super) struct Course {
    begun: Instant,
    pause: Duration,
    requests: Option<u64>,
    time: Option<Duration>,
}

impl Course {
    pub(super) fn start(args: &DemoArgs) -> Course {
        let seconds = args.seconds.or(args.requests.is_none().then_some(SECONDS));
        let time = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        Course { begun: Instant::now(), pause: Duration::ZERO, requests: args.requests, time }
    }

    /// Says that the load was interrupted for so long.
    pub(super) fn resume_after(&mut self, pause: Duration) {
        self.pause += pause;
    }

    /// From 0 to 1, or a little more.
    pub(super) fn share(&self, requests: u64) -> f64 {
        let elapsed = self.begun.elapsed().saturating_sub(self.pause);
        let by_time = self.time.map_or(0.0, |time| elapsed.as_secs_f64() / time.as_secs_f64());
        let by_requests = self.requests.map_or(0.0, |all| requests as f64 / all as f64);
        by_time.max(by_requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(requests: Option<u64>, seconds: Option<u32>) -> Course {
        Course::start(&DemoArgs { connections: 1, requests, seconds, seed: None, json: false })
    }

    #[test]
    fn requests_or_time_end_a_load_whichever_comes_first() {
        assert!(course(Some(100), None).time.is_none(), "a load of so many requests may take its time");
        assert!((course(Some(100), None).share(50) - 0.5).abs() < f64::EPSILON);
        assert!(course(None, None).share(u64::MAX) < 0.1);
        let mut over = Course { time: Some(Duration::from_nanos(1)), ..course(Some(100), None) };
        assert!(over.share(1) >= 1.0);
        over.resume_after(Duration::from_secs(3600));
        assert!(over.share(1) < 0.1, "a pause does not count");
    }
}
