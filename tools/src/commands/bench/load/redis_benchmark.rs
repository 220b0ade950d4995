//! redis-benchmark, which waits for each reply before it asks again on the same connection.

use fastrand::Rng;

use super::{
    Ground, Latency, Load, Outcome, WARM_UP,
    asked::Asked,
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

/// Connections that write all keys before, and requests under way on each of them.
const FILLERS: usize = 32;
const DEPTH: usize = 128;

/// Answers in a second below which the bench asks by itself, in redis-benchmark's place. That can be told a number of requests, but no time;
/// it would wait for the last reply however long that takes, and not count what has none. So slow a guest leaves any client time enough.
const SLOW: f64 = 1000.0;

/// What is asked of how many keys.
struct Mix {
    /// Each by a redis-benchmark of its own.
    parts: &'static [Part],
    /// Whether all parts ask at the same time, or one behind the other.
    together: bool,
    keys: u64,
    /// Bytes of a value.
    value: usize,
}

/// One redis-benchmark.
struct Part {
    request: Request,
    clients: usize,
    /// Of each ten requests.
    tenths: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Get,
    Set,
}

/// GET and SET 9 to 1, of small values.
const READS: Mix = Mix {
    parts: &[
        Part { request: Request::Get, clients: 45, tenths: 9 },
        Part { request: Request::Set, clients: 5, tenths: 1 },
    ],
    together: true,
    keys: 100_000,
    value: 64,
};

/// SET only, all over a large part of the guest's memory.
const WRITES: Mix = Mix {
    parts: &[Part { request: Request::Set, clients: 50, tenths: 10 }],
    together: true,
    keys: 200_000,
    value: 256,
};

/// As `READS`, by one client.
const LONE: Mix = Mix {
    parts: &[
        Part { request: Request::Get, clients: 1, tenths: 9 },
        Part { request: Request::Set, clients: 1, tenths: 1 },
    ],
    together: false,
    ..READS
};

/// Random keys of a mix.
pub(crate) struct RedisBenchmark {
    mix: &'static Mix,
    asking: Asking,
}

/// How the load asks.
enum Asking {
    /// So many requests by redis-benchmark, which take about as long as the load shall last.
    Count(u64),
    /// By the bench itself.
    Own(Client),
}

impl RedisBenchmark {
    fn of(mix: &'static Mix) -> RedisBenchmark {
        RedisBenchmark { mix, asking: Asking::Count(1) }
    }

    /// Nearly all of it reads.
    pub(crate) fn reads() -> RedisBenchmark {
        RedisBenchmark::of(&READS)
    }

    /// All of it writes, to a large working set.
    pub(crate) fn writes() -> RedisBenchmark {
        RedisBenchmark::of(&WRITES)
    }

    /// One client, whose every request is alone.
    pub(crate) fn lone() -> RedisBenchmark {
        RedisBenchmark::of(&LONE)
    }
}

impl Load for RedisBenchmark {
    fn fill(&mut self, ground: &Ground) -> Result<(), Failure> {
        self.mix.fill(ground)
    }

    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        let mut client = Client::connect(ground.client, 6379, self.mix.connections())?;
        let warm_up = ground.time.mul_f64(WARM_UP);
        let asked = self.mix.ask(&mut client, Limit::Time(warm_up))?;
        let rate = |outcome: Outcome| outcome.per_second.unwrap_or(0.0);
        let own = rate(asked.outcome());
        self.asking = if own < SLOW {
            Asking::Own(client.rested(ground.client, 6379)?)
        } else {
            drop(client);
            // It may be faster or slower than this process.
            let measured = self.mix.run(ground, (own * warm_up.as_secs_f64()).ceil() as u64)?;
            Asking::Count((rate(measured) * ground.time.as_secs_f64()).ceil() as u64)
        };
        Ok(())
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        match &mut self.asking {
            Asking::Count(requests) => self.mix.run(ground, *requests),
            Asking::Own(client) => Ok(self.mix.ask(client, Limit::Time(ground.time))?.outcome()),
        }
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

    /// How many connections ask at the same time.
    fn connections(&self) -> usize {
        let clients = self.parts.iter().map(|part| part.clients);
        if self.together { clients.sum() } else { clients.max().unwrap_or(1) }
    }

    /// What a request of this number is.
    fn request(&self, number: u64) -> Request {
        let mut rest = number % 10;
        let part = self.parts.iter().find(|part| {
            let found = rest < part.tenths;
            rest = rest.saturating_sub(part.tenths);
            found
        });
        part.map_or(Request::Get, |part| part.request)
    }

    /// The same as redis-benchmark, by this process.
    fn ask(&self, client: &mut Client, limit: Limit) -> Result<Asked, Failure> {
        let mut random = Rng::with_seed(2);
        let value: String = (0..self.value).map(|_| random.alphanumeric()).collect();
        ask(client, 1, limit, |number, out| {
            let key = format!("key:{:012}", random.u64(..self.keys));
            match self.request(number) {
                Request::Get => write_request(&[b"GET", key.as_bytes()], out),
                Request::Set => write_request(&[b"SET", key.as_bytes(), value.as_bytes()], out),
            }
        })
    }

    /// All parts.
    fn run(&self, ground: &Ground, requests: u64) -> Result<Outcome, Failure> {
        let Mix { parts, keys, value, together } = self;
        let count = |part: &Part| (requests * part.tenths).div_ceil(10).max(1);
        let begin = |part: &Part| {
            let Part { request, clients, .. } = part;
            let what = format!("-t {} -c {clients} -r {keys} -d {value} -n {}", request.name(), count(part));
            start(ground, NAME, &format!("-h {GUEST} --csv --precision 3 {what}"))
        };
        let end = |child| {
            let printed = finish(NAME, child)?;
            let row = Measured::rows(&printed).into_iter().find(|row| row.rate > 0.0);
            row.ok_or_else(|| unclear(NAME, &printed))
        };
        let rows: Vec<Measured> = if *together {
            let started: Vec<_> = parts.iter().map(begin).collect::<Result<_, _>>()?;
            started.into_iter().map(end).collect::<Result<_, _>>()?
        } else {
            parts.iter().map(|part| begin(part).and_then(end)).collect::<Result<_, _>>()?
        };
        let times = parts.iter().zip(&rows).map(|(part, row)| count(part) as f64 / row.rate);
        let time = if *together { times.fold(f64::MIN_POSITIVE, f64::max) } else { times.sum() };
        let requests = parts.iter().map(count).sum();
        Ok(Outcome {
            requests: Some(requests),
            per_second: Some(requests as f64 / time),
            // Of the first part, which has most of the requests.
            latency: rows.first().map(|row| Latency { p50: row.p50 * 1e3, p99: row.p99 * 1e3, p999: None }),
            ..Outcome::default()
        })
    }
}

impl Request {
    /// As redis-benchmark calls it.
    fn name(self) -> &'static str {
        match self {
            Request::Get => "get",
            Request::Set => "set",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bench_asks_by_itself_is_mixed_alike() {
        let sets = |mix: &Mix| (0..100).filter(|number| mix.request(*number) == Request::Set).count();
        assert_eq!([&READS, &WRITES, &LONE].map(sets), [10, 100, 10]);
        assert_eq!([&READS, &WRITES, &LONE].map(Mix::connections), [50, 50, 1]);
        for mix in [READS, WRITES, LONE] {
            assert_eq!(mix.parts.iter().map(|part| part.tenths).sum::<u64>(), 10);
        }
    }
}
