//! A guest that only computes, and says how far it is when it is asked.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    thread,
    time::Instant,
};

use super::{Ground, Load, Outcome};
use crate::{commands::bench::client, failure::Failure};

/// The guest `spin`.
#[derive(Default)]
pub(crate) struct Compute {
    line: Option<BufReader<TcpStream>>,
}

impl Load for Compute {
    fn prepare(&mut self, ground: &Ground) -> Result<(), Failure> {
        self.line = Some(BufReader::new(client::connect(ground.client, 7)?));
        Ok(())
    }

    fn run(&mut self, ground: &Ground) -> Result<Outcome, Failure> {
        let Some(line) = &mut self.line else {
            return Ok(Outcome::default());
        };
        let (before, begun) = (ask(line)?, Instant::now());
        thread::sleep(ground.time);
        let (after, ended) = (ask(line)?, Instant::now());
        let done = after.saturating_sub(before) as f64;
        let per_second = done / (ended - begun).as_secs_f64();
        Ok(Outcome { iterations_per_second: Some(per_second), ..Outcome::default() })
    }
}

/// How many iterations there have been.
fn ask(line: &mut BufReader<TcpStream>) -> Result<u64, Failure> {
    let mut answer = String::new();
    let asked = line.get_mut().write_all(b"\n").and_then(|()| line.read_line(&mut answer));
    asked.map_err(|error| {
        Failure::new("the guest does not answer", "see what the nodes said last").because(error)
    })?;
    iterations(&answer).ok_or_else(|| {
        Failure::new(
            format!("the guest answers wrongly: {answer:?}"),
            "please report it, with the command that was given",
        )
    })
}

/// The answer is a checksum and the number of iterations.
fn iterations(answer: &str) -> Option<u64> {
    answer.split_whitespace().last()?.parse().ok()
}
