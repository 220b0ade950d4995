//! redis-benchmark, which waits for each reply before it asks again on the same connection.

use std::time::Duration;

use super::{Ground, Latency, Load, Outcome, finish, start, unclear};
use crate::{
    failure::Failure,
    lab::{GUEST, Measured},
};

const NAME: &str = "redis-benchmark";

/// Requests of the first attempt to find out how fast the guest is.
const FIRST: u64 = 500;

/// An attempt that took less of the time than this is no measure, and the next one is larger.
const MEASURE: f64 = 0.1;

/// One redis-benchmark: what it asks, on how many connections.
struct Part {
    arguments: &'static str,
    /// Of all requests.
    share: f64,
}

/// GET and SET 9 to 1, of random keys in a small key space.
const READS: [Part; 2] = [
    Part { arguments: "-t get -c 45 -r 100000", share: 0.9 },
    Part { arguments: "-t set -c 5 -r 100000 -d 64", share: 0.1 },
];

/// SET of values that fill a large part of the guest's memory.
const WRITES: [Part; 1] = [Part { arguments: "-t set -c 50 -r 300000 -d 256", share: 1.0 }];

/// The load of [`READS`].
#[derive(Default)]
pub(crate) struct Reads {
    requests: u64,
}

/// The load of [`WRITES`].
#[derive(Default)]
pub(crate) struct Writes {
    requests: u64,
}

impl Load for Reads {
    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        self.requests = estimate(ground, &READS)?;
        Ok(())
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        run(ground, &READS, self.requests)
    }
}

impl Load for Writes {
    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        self.requests = estimate(ground, &WRITES)?;
        Ok(())
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        run(ground, &WRITES, self.requests)
    }
}

/// How many requests take about as long as the load shall last: redis-benchmark can be told nothing else.
fn estimate(ground: &Ground, parts: &[Part]) -> Result<u64, Failure> {
    let mut requests = FIRST;
    loop {
        let per_second = run(ground, parts, requests)?.per_second.unwrap_or(1.0).max(1.0);
        let took = requests as f64 / per_second;
        if took >= ground.time.as_secs_f64() * MEASURE {
            return Ok((per_second * ground.time.as_secs_f64()).ceil() as u64);
        }
        requests *= 4;
    }
}

/// All parts at once.
fn run(ground: &Ground, parts: &[Part], requests: u64) -> Result<Outcome, Failure> {
    let count = |part: &Part| ((requests as f64 * part.share).ceil() as u64).max(1);
    let begin = |part: &Part| {
        let arguments = format!("-h {GUEST} --csv --precision 3 -n {} {}", count(part), part.arguments);
        start(ground, NAME, &arguments)
    };
    let started: Vec<_> = parts.iter().map(begin).collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for child in started {
        let printed = finish(NAME, child)?;
        let row = Measured::rows(&printed).into_iter().find(|row| row.rate > 0.0);
        rows.push(row.ok_or_else(|| unclear(NAME, &printed))?);
    }
    let requests: u64 = parts.iter().map(count).sum();
    let longest =
        parts.iter().zip(&rows).map(|(part, row)| count(part) as f64 / row.rate).fold(0.0, f64::max);
    Ok(Outcome {
        requests: Some(requests),
        per_second: Some(requests as f64 / longest.max(Duration::from_millis(1).as_secs_f64())),
        // Of the first part, which has most of the requests.
        latency: rows.first().map(|row| Latency { p50: row.p50 * 1e3, p99: row.p99 * 1e3, p999: None }),
        ..Outcome::default()
    })
}
