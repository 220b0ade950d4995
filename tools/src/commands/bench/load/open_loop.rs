//! An open loop: requests come at a fixed rate, as from many people who do not know of each other.
//!
//! A client that waits for its reply before it asks again asks less while the server is slow, and so measures just then least often
//! (coordinated omission). Here each request has a time at which it should be sent, whatever became of the earlier ones, and its
//! response time counts from there.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use fastrand::Rng;
use hdrhistogram::Histogram;
use rustix::thread::set_current_timer_slack;

use super::{Ground, Latency, Load, Outcome};
use crate::{commands::bench::client::Client, failure::Failure, model::resp::write_request};

/// Connections, over which the requests are dealt out.
const CONNECTIONS: usize = 16;

/// Different keys.
const KEYS: u64 = 100_000;

/// Bytes of a value.
const VALUE: usize = 16;

/// How long the last replies are waited for.
const GRACE: Duration = Duration::from_secs(2);

/// The load before anything is measured, as a share of the time.
const WARM_UP: f64 = 0.2;

/// SET and GET by turns, of random keys and values.
pub(crate) struct OpenLoop {
    client: Option<Client>,
    random: Rng,
}

impl Default for OpenLoop {
    fn default() -> OpenLoop {
        OpenLoop { client: None, random: Rng::with_seed(1) }
    }
}

impl Load for OpenLoop {
    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        let mut client = Client::connect(ground.client, 6379, CONNECTIONS)?;
        self.ask(&mut client, ground.arrivals, ground.time.mul_f64(WARM_UP))?;
        // What a warm-up leaves unanswered would be in the way.
        let is_idle = client.waiting().next().is_none();
        self.client = is_idle.then_some(client);
        Ok(())
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(ground.client, 6379, CONNECTIONS)?,
        };
        let asked = self.ask(&mut client, ground.arrivals, ground.time)?;
        Ok(asked.outcome())
    }
}

impl OpenLoop {
    fn ask(&mut self, client: &mut Client, arrivals: u32, time: Duration) -> Result<Asked, Failure> {
        let _punctual = Punctual::begin();
        let begun = Instant::now();
        let mut schedule = Schedule { arrivals, next: 0 };
        let mut asked = Asked::nothing()?;
        let mut request = Vec::new();
        while begun.elapsed() < time + GRACE {
            while let Some(at) = schedule.due(begun.elapsed(), time) {
                request.clear();
                self.write(&mut request, schedule.next);
                client.request(schedule.next as usize % client.len(), &request, begun + at);
                asked.requests += 1;
            }
            if schedule.at() >= time && client.waiting().next().is_none() {
                break;
            }
            let next = if schedule.at() < time { schedule.at() } else { time + GRACE };
            client.turn(begun + next, |_, at| asked.replied(at.elapsed()))?;
        }
        asked.time = begun.elapsed().max(time);
        client.waiting().for_each(|at| asked.unanswered(at.elapsed()));
        Ok(asked)
    }

    fn write(&mut self, request: &mut Vec<u8>, number: u64) {
        let key = format!("key:{:012}", self.random.u64(..KEYS));
        if number.is_multiple_of(2) {
            write_request(&[b"GET", key.as_bytes()], request);
        } else {
            let value: String = (0..VALUE).map(|_| self.random.alphanumeric()).collect();
            write_request(&[b"SET", key.as_bytes(), value.as_bytes()], request);
        }
    }
}

/// While this is there, the kernel wakes this thread when it asked for that, not up to 50 µs later. No longer than that: the processes
/// which this thread starts have its habits, and nodes are to have those of any process.
struct Punctual;

impl Punctual {
    fn begin() -> Punctual {
        // Where the kernel refuses, response times are a little coarser.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        Punctual
    }
}

impl Drop for Punctual {
    fn drop(&mut self) {
        let _ = set_current_timer_slack(None);
    }
}

/// When requests should be sent.
struct Schedule {
    /// In each second.
    arrivals: u32,
    /// The number of the next request.
    next: u64,
}

impl Schedule {
    /// When the next request should be sent, since the beginning.
    fn at(&self) -> Duration {
        let nanos = u128::from(self.next) * 1_000_000_000 / u128::from(self.arrivals.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When the next request should have been sent, if that is not later than `now` and earlier than `end`; and goes on to the one
    /// behind it.
    fn due(&mut self, now: Duration, end: Duration) -> Option<Duration> {
        let at = self.at();
        (at <= now && at < end).then(|| {
            self.next += 1;
            at
        })
    }
}

/// What was asked, and how long the answers took.
struct Asked {
    requests: u64,
    unanswered: u64,
    time: Duration,
    /// Microseconds.
    latencies: Histogram<u64>,
}

/// The longest response time that is told apart, µs.
const LONGEST: u64 = 600_000_000;

impl Asked {
    fn nothing() -> Result<Asked, Failure> {
        let latencies = Histogram::new_with_max(LONGEST, 3).map_err(|error| {
            Failure::new("cannot count response times", "see whether memory is exhausted").because(error)
        })?;
        Ok(Asked { requests: 0, unanswered: 0, time: Duration::ZERO, latencies })
    }

    fn replied(&mut self, after: Duration) {
        self.latencies.saturating_record(u64::try_from(after.as_micros()).unwrap_or(LONGEST));
    }

    /// A request that has no reply has waited at least so long. To leave it out would make the slowest system look best.
    fn unanswered(&mut self, after: Duration) {
        self.unanswered += 1;
        self.replied(after);
    }

    fn outcome(&self) -> Outcome {
        let quantile = |share| self.latencies.value_at_quantile(share) as f64;
        let answered = self.requests - self.unanswered;
        Outcome {
            requests: Some(self.requests),
            per_second: Some(answered as f64 / self.time.as_secs_f64()),
            latency: Some(Latency { p50: quantile(0.5), p99: quantile(0.99), p999: Some(quantile(0.999)) }),
            unanswered: self.unanswered,
            ..Outcome::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_neither_drifts_nor_runs_ahead_nor_waits_for_anybody() {
        let second = Duration::from_secs(1);
        let mut schedule = Schedule { arrivals: 3, next: 0 };
        assert_eq!(schedule.due(Duration::ZERO, second), Some(Duration::ZERO));
        assert_eq!(schedule.due(Duration::from_millis(333), second), None);
        assert_eq!(schedule.due(Duration::from_millis(334), second), Some(Duration::from_nanos(333_333_333)));
        // Who was held up sends everything that is due, with the times at which it was.
        let late: Vec<_> = std::iter::from_fn(|| schedule.due(Duration::from_secs(60), 2 * second)).collect();
        assert_eq!(
            late,
            [666_666_666, 1_000_000_000, 1_333_333_333, 1_666_666_666].map(Duration::from_nanos)
        );
        schedule.next = 3_000_000_000;
        assert_eq!(schedule.at(), Duration::from_secs(1_000_000_000));
    }

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
    fn requests_are_read_and_write_by_turns() {
        let mut load = OpenLoop::default();
        let mut requests = Vec::new();
        (0..2).for_each(|number| load.write(&mut requests, number));
        let text = String::from_utf8(requests).expect("text");
        assert!(text.starts_with("*2\r\n$3\r\nGET\r\n$16\r\nkey:0000000"), "{text}");
        assert!(text.contains("*3\r\n$3\r\nSET\r\n$16\r\nkey:0000000"), "{text}");
    }
}
