//! A closed loop: so many requests are under way, and the next one waits for a reply.

use std::time::{Duration, Instant};

use super::{GRACE, asked::Asked};
use crate::{commands::bench::client::Client, failure::Failure};

/// How long a look at the connections lasts where nothing comes.
const TURN: Duration = Duration::from_secs(1);

/// When it is enough.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    /// After this time. The last replies are waited for a little, and what has none by then stays unanswered.
    Time(Duration),
    /// After so many requests, with all their replies.
    Count(u64),
}

impl Limit {
    /// Whether no more is to be asked.
    fn is_reached(self, time: Duration, requests: u64) -> bool {
        match self {
            Limit::Time(limit) => time >= limit,
            Limit::Count(count) => requests >= count,
        }
    }

    /// How long replies are still waited for.
    fn patience(self, time: Duration) -> Duration {
        match self {
            Limit::Time(limit) => (limit + GRACE).saturating_sub(time).min(TURN),
            Limit::Count(_) => TURN,
        }
    }
}

/// Keeps `depth` requests under way on each connection, each written by its number.
pub(super) fn ask(
    client: &mut Client,
    depth: usize,
    limit: Limit,
    mut write: impl FnMut(u64, &mut Vec<u8>),
) -> Result<Asked, Failure> {
    let begun = Instant::now();
    let mut asked = Asked::nothing()?;
    let mut free: Vec<usize> = (0..client.len()).flat_map(|number| vec![number; depth]).collect();
    let mut request = Vec::new();
    loop {
        while !limit.is_reached(begun.elapsed(), asked.requests)
            && let Some(connection) = free.pop()
        {
            request.clear();
            write(asked.requests, &mut request);
            client.request(connection, &request, Instant::now());
            asked.requests += 1;
        }
        let patience = limit.patience(begun.elapsed());
        if client.waiting().next().is_none() || patience.is_zero() {
            break;
        }
        client.turn(Instant::now() + patience, |connection, at| {
            free.push(connection);
            asked.replied(at.elapsed());
        })?;
    }
    asked.time = begun.elapsed();
    client.waiting().for_each(|at| asked.unanswered(at.elapsed()));
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_kept_whether_or_not_everything_is_answered() {
        let time = Duration::from_secs(5);
        let limit = Limit::Time(time);
        assert!(!limit.is_reached(time / 2, 1_000_000) && limit.is_reached(time, 0));
        assert_eq!(limit.patience(time / 2), TURN);
        assert_eq!(limit.patience(time + GRACE / 4 * 3), GRACE / 4);
        assert_eq!(limit.patience(time + GRACE), Duration::ZERO);
        let limit = Limit::Count(3);
        assert!(!limit.is_reached(time, 2) && limit.is_reached(Duration::ZERO, 3));
        assert!(limit.patience(100 * time) > Duration::ZERO, "all of them");
    }
}
