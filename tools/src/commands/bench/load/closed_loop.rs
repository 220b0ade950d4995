//! A closed loop: so many requests are under way, and the next one waits for a reply.

use std::time::{Duration, Instant};

use super::Outcome;
use crate::{commands::bench::client::Client, failure::Failure};

/// How long a look at the connections lasts where nothing comes.
const TURN: Duration = Duration::from_secs(1);

/// When it is enough.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    Time(Duration),
    Count(u64),
}

/// Keeps `depth` requests under way on each connection, each written by its number, and waits for all replies in the end.
pub(super) fn ask(
    client: &mut Client,
    depth: usize,
    limit: Limit,
    mut write: impl FnMut(u64, &mut Vec<u8>),
) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let (mut sent, mut replies) = (0, 0);
    let enough = |sent| match limit {
        Limit::Time(time) => begun.elapsed() >= time,
        Limit::Count(count) => sent >= count,
    };
    let mut free: Vec<usize> = (0..client.len()).flat_map(|number| vec![number; depth]).collect();
    let mut request = Vec::new();
    loop {
        while !enough(sent)
            && let Some(connection) = free.pop()
        {
            request.clear();
            write(sent, &mut request);
            client.request(connection, &request, Instant::now());
            sent += 1;
        }
        if replies == sent {
            break;
        }
        client.turn(Instant::now() + TURN, |connection, _| {
            free.push(connection);
            replies += 1;
        })?;
    }
    let per_second = replies as f64 / begun.elapsed().as_secs_f64();
    Ok(Outcome { requests: Some(replies), per_second: Some(per_second), ..Outcome::default() })
}
