//! redis-benchmark, which waits for each reply before it asks again on the same connection.

use fastrand::Rng;

use super::{
    Ground, Latency, Load, Outcome,
    closed_loop::{Limit, ask},
    finish, start, unclear,
};
use crate::{
    commands::bench::client::Client,
    failure::Failure,
    lab::{GUEST, Measured},
    model::resp::write_request,
};

const NAME: &str = "redis-benchmark";

/// Requests of the first attempt to find out how fast the guest is.
const FIRST: u64 = 200;

/// An attempt that took less of the time than this is no measure, and the next one is larger.
const MEASURE: f64 = 0.1;

/// Connections that write all keys before, and requests under way on each of them.
const FILLERS: usize = 8;
const DEPTH: usize = 128;

/// What is asked of how many keys.
struct Mix {
    /// Each by a redis-benchmark of its own, all at the same time.
    parts: &'static [Part],
    keys: u64,
    /// Bytes of a value.
    value: usize,
}

/// One redis-benchmark.
struct Part {
    arguments: &'static str,
    /// Of all requests.
    share: f64,
}

/// GET and SET 9 to 1, of small values.
const READS: Mix = Mix {
    parts: &[Part { arguments: "-t get -c 45", share: 0.9 }, Part { arguments: "-t set -c 5", share: 0.1 }],
    keys: 100_000,
    value: 64,
};

/// SET only, all over a large part of the guest's memory.
const WRITES: Mix =
    Mix { parts: &[Part { arguments: "-t set -c 50", share: 1.0 }], keys: 200_000, value: 256 };

/// Random keys of a mix.
pub(crate) struct RedisBenchmark {
    mix: &'static Mix,
    /// As many as take about as long as the load shall last.
    requests: u64,
}

impl RedisBenchmark {
    /// Nearly all of it reads.
    pub(crate) fn reads() -> RedisBenchmark {
        RedisBenchmark { mix: &READS, requests: FIRST }
    }

    /// All of it writes, to a large working set.
    pub(crate) fn writes() -> RedisBenchmark {
        RedisBenchmark { mix: &WRITES, requests: FIRST }
    }
}

impl Load for RedisBenchmark {
    fn fill(&mut self, ground: &Ground) -> Result<(), Failure> {
        self.mix.fill(ground)
    }

    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        // redis-benchmark can be told a number of requests, but no time.
        loop {
            let per_second = self.mix.run(ground, self.requests)?.per_second.unwrap_or(1.0).max(1.0);
            let took = self.requests as f64 / per_second;
            if took >= ground.time.as_secs_f64() * MEASURE {
                self.requests = (per_second * ground.time.as_secs_f64()).ceil() as u64;
                return Ok(());
            }
            self.requests *= 4;
        }
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        self.mix.run(ground, self.requests)
    }
}

impl Mix {
    /// Writes every key once.
    fn fill(&self, ground: &Ground) -> Result<(), Failure> {
        let mut client = Client::connect(ground.client, 6379, FILLERS)?;
        let mut random = Rng::with_seed(1);
        let filled = ask(&mut client, DEPTH, Limit::Count(self.keys), |number, request| {
            // As redis-benchmark names them.
            let key = format!("key:{number:012}");
            let value: String = (0..self.value).map(|_| random.alphanumeric()).collect();
            write_request(&[b"SET", key.as_bytes(), value.as_bytes()], request);
        });
        filled.map(|_| ())
    }

    /// All parts at once.
    fn run(&self, ground: &Ground, requests: u64) -> Result<Outcome, Failure> {
        let Mix { parts, keys, value } = self;
        let count = |part: &Part| ((requests as f64 * part.share).ceil() as u64).max(1);
        let begin = |part: &Part| {
            let what = format!("{} -r {keys} -d {value} -n {}", part.arguments, count(part));
            start(ground, NAME, &format!("-h {GUEST} --csv --precision 3 {what}"))
        };
        let started: Vec<_> = parts.iter().map(begin).collect::<Result<_, _>>()?;
        let mut rows = Vec::new();
        for child in started {
            let printed = finish(NAME, child)?;
            let row = Measured::rows(&printed).into_iter().find(|row| row.rate > 0.0);
            rows.push(row.ok_or_else(|| unclear(NAME, &printed))?);
        }
        let times = parts.iter().zip(&rows).map(|(part, row)| count(part) as f64 / row.rate);
        let (longest, requests) = (times.fold(f64::MIN_POSITIVE, f64::max), parts.iter().map(count).sum());
        Ok(Outcome {
            requests: Some(requests),
            per_second: Some(requests as f64 / longest),
            // Of the first part, which has most of the requests.
            latency: rows.first().map(|row| Latency { p50: row.p50 * 1e3, p99: row.p99 * 1e3, p999: None }),
            ..Outcome::default()
        })
    }
}
