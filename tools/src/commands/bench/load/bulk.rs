//! Large values in one direction, which no compression makes smaller.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{Ground, Load, Outcome};
use crate::{commands::bench::client::Client, failure::Failure, model::resp::write_request};

/// Bytes of a value.
const VALUE: usize = 32 << 10;

/// Different values and keys.
const VALUES: usize = 64;

/// Connections, and requests under way on each of them.
const CONNECTIONS: usize = 4;
const DEPTH: usize = 4;

/// The load before anything is measured, as a share of the time.
const WARM_UP: f64 = 0.2;

/// Values that go to the guest, or come from it, as fast as they can.
pub(crate) struct Bulk {
    direction: Direction,
    client: Option<Client>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl Bulk {
    /// To the guest.
    pub(crate) fn receive() -> Bulk {
        Bulk { direction: Direction::In, client: None }
    }

    /// From the guest.
    pub(crate) fn send() -> Bulk {
        Bulk { direction: Direction::Out, client: None }
    }
}

impl Load for Bulk {
    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        let mut client = Client::connect(ground.client, 6379, CONNECTIONS)?;
        // All values are there before any of them is asked for.
        ask(&mut client, &requests(Direction::In), Limit::Count(VALUES as u64))?;
        ask(&mut client, &requests(self.direction), Limit::Time(ground.time.mul_f64(WARM_UP)))?;
        self.client = Some(client);
        Ok(())
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(ground.client, 6379, CONNECTIONS)?,
        };
        ask(&mut client, &requests(self.direction), Limit::Time(ground.time))
    }
}

/// When it is enough.
#[derive(Clone, Copy)]
enum Limit {
    Time(Duration),
    Count(u64),
}

fn requests(direction: Direction) -> Vec<Vec<u8>> {
    let mut random = Rng::with_seed(1);
    let mut value = vec![0; VALUE];
    let request = |number: usize| {
        let (key, mut request) = (format!("bulk:{number}"), Vec::new());
        match direction {
            Direction::In => {
                random.fill(&mut value);
                write_request(&[b"SET", key.as_bytes(), &value], &mut request);
            }
            Direction::Out => write_request(&[b"GET", key.as_bytes()], &mut request),
        }
        request
    };
    (0..VALUES).map(request).collect()
}

/// Keeps so many requests under way on each connection, and waits for all replies in the end.
fn ask(client: &mut Client, requests: &[Vec<u8>], limit: Limit) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let (mut sent, mut replies) = (0u64, 0);
    let enough = |sent| match limit {
        Limit::Time(time) => begun.elapsed() >= time,
        Limit::Count(count) => sent >= count,
    };
    let mut free: Vec<usize> = (0..client.len()).flat_map(|number| [number; DEPTH]).collect();
    loop {
        while !enough(sent)
            && let Some(connection) = free.pop()
        {
            client.request(connection, &requests[sent as usize % requests.len()], Instant::now());
            sent += 1;
        }
        if replies == sent {
            break;
        }
        client.turn(Instant::now() + Duration::from_secs(1), |connection, _| {
            free.push(connection);
            replies += 1;
        })?;
    }
    let per_second = replies as f64 / begun.elapsed().as_secs_f64();
    Ok(Outcome { requests: Some(replies), per_second: Some(per_second), ..Outcome::default() })
}
