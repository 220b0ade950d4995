//! wrk: a page over HTTP.

use super::{Ground, Latency, Load, Outcome, finish, start, unclear};
use crate::{failure::Failure, lab::GUEST};

const NAME: &str = "wrk";

/// The page of the key-value server at port 80, over and over.
pub(crate) struct Pages;

impl Load for Pages {
    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        run(ground, 1).map(|_| ())
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        run(ground, ground.time.as_secs().max(1))
    }
}

fn run(ground: &Ground, seconds: u64) -> Result<Outcome, Failure> {
    let arguments = format!("-t 1 -c 32 -d {seconds}s --timeout 30s --latency http://{GUEST}/");
    let child = start(ground, NAME, &arguments)?;
    let printed = finish(NAME, child)?;
    read(&printed).ok_or_else(|| unclear(NAME, &printed))
}

fn read(printed: &str) -> Option<Outcome> {
    let behind = |name: &str| printed.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let (requests, _) = printed.lines().find_map(|line| line.split_once(" requests in "))?;
    if printed.contains("Socket errors") || printed.contains("Non-2xx") {
        return None;
    }
    let requests = requests.trim().parse().ok()?;
    let latency = Latency { p50: micros(behind("50%")?)?, p99: micros(behind("99%")?)?, p999: None };
    Some(Outcome {
        requests: Some(requests),
        per_second: Some(behind("Requests/sec:")?.parse().ok()?),
        // Of no answers it says that they took no time.
        latency: Some(latency).filter(|_| requests > 0),
        ..Outcome::default()
    })
}

/// A time such as `1.23ms`.
fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 1s test @ http://10.0.0.2/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   623.14us  287.28us   6.09ms   91.01%
    Req/Sec    51.96k     3.93k   57.32k    63.64%
  Latency Distribution
     50%  580.00us
     75%  670.00us
     90%  825.00us
     99%    1.61ms
  56867 requests in 1.10s, 12.04MB read
Requests/sec:  51710.54
Transfer/sec:     10.95MB
";

    #[test]
    fn what_it_prints_is_understood() {
        let outcome = read(PRINTED).expect("results");
        assert_eq!((outcome.requests, outcome.per_second), (Some(56867), Some(51710.54)));
        assert_eq!(outcome.latency, Some(Latency { p50: 580.0, p99: 1610.0, p999: None }));
        assert!(read("unable to connect to 10.0.0.2:http Connection refused").is_none());
        assert!(
            read(&format!("{PRINTED}  Socket errors: connect 0, read 3, write 0, timeout 0\n")).is_none()
        );
    }
}
