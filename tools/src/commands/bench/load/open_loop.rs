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
use rustix::thread::set_current_timer_slack;

use super::{GRACE, Ground, Load, Outcome, WARM_UP, asked::Asked};
use crate::{commands::bench::client::Client, failure::Failure, model::resp::write_request};

/// Connections, over which the requests are dealt out.
const CONNECTIONS: usize = 16;

/// Different keys.
const KEYS: u64 = 100_000;

/// Bytes of a value.
const VALUE: usize = 16;

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
        self.client = Some(client.rested(ground.client, 6379)?);
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
    fn requests_are_read_and_write_by_turns() {
        let mut load = OpenLoop::default();
        let mut requests = Vec::new();
        (0..2).for_each(|number| load.write(&mut requests, number));
        let text = String::from_utf8(requests).expect("text");
        assert!(text.starts_with("*2\r\n$3\r\nGET\r\n$16\r\nkey:0000000"), "{text}");
        assert!(text.contains("*3\r\n$3\r\nSET\r\n$16\r\nkey:0000000"), "{text}");
    }
}
