//! Large values in one direction, which no compression makes smaller.

use fastrand::Rng;

use super::{
    Ground, Load, Outcome, WARM_UP,
    closed_loop::{Limit, ask},
};
use crate::{commands::bench::client::Client, failure::Failure, model::resp::write_request};

/// Bytes of a value.
const VALUE: usize = 32 << 10;

/// Different values and keys.
const VALUES: usize = 64;

/// Connections, and requests under way on each of them.
const CONNECTIONS: usize = 4;
const DEPTH: usize = 4;

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
    fn fill(&mut self, ground: &Ground) -> Result<(), Failure> {
        let mut client = Client::connect(ground.client, 6379, CONNECTIONS)?;
        transfer(&mut client, Direction::In, Limit::Count(VALUES as u64)).map(|_| ())
    }

    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        let mut client = Client::connect(ground.client, 6379, CONNECTIONS)?;
        transfer(&mut client, self.direction, Limit::Time(ground.time.mul_f64(WARM_UP)))?;
        self.client = Some(client.rested(ground.client, 6379)?);
        Ok(())
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(ground.client, 6379, CONNECTIONS)?,
        };
        transfer(&mut client, self.direction, Limit::Time(ground.time))
    }
}

fn transfer(client: &mut Client, direction: Direction, limit: Limit) -> Result<Outcome, Failure> {
    // Made before the time begins.
    let requests = requests(direction);
    let asked = ask(client, DEPTH, limit, |number, out| {
        out.extend_from_slice(&requests[number as usize % requests.len()]);
    })?;
    Ok(asked.outcome())
}

/// A request for each value.
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
