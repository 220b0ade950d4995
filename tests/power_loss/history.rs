//! What was asked of a key-value server, and which of it must be there after a loss of power.
//!
//! Each connection writes to keys of its own, one write after the other, and each write leaves its number. So what a key
//! holds names the last write to it, and what all of them hold is the state after some beginning of the connection's
//! writes, or it is no state that ever was.

use std::time::{Duration, Instant};

/// Keys of each connection.
pub(crate) const KEYS: usize = 16;

/// A write. Its number is its place among those of its connection, from 1 on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    /// Which of the connection's keys.
    pub(crate) key: usize,
    /// When it was sent, or a moment before.
    pub(crate) asked: Instant,
    /// When its reply had come.
    pub(crate) answered: Option<Instant>,
}

/// What is known of a server's state, by connection.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// All writes that may have been done.
    pub(crate) writes: Vec<Vec<Write>>,
}

/// What of a history was not there after a loss of power.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lost {
    /// Writes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// How long before the power failed the first of them had been acknowledged.
    pub(crate) since: Duration,
    /// Writes that were there, though nobody had been told.
    pub(crate) unconfirmed: u64,
}

/// The value that a write leaves.
pub(crate) fn value(connection: usize, key: usize, number: usize) -> String {
    // Of different lengths, as values are.
    format!("{connection}.{key}.{number}.{}", "x".repeat(number * 7 % 61))
}

/// The key's name.
pub(crate) fn name(connection: usize, key: usize) -> String {
    format!("{connection}.{key}")
}

/// The number of the write that left this.
pub(crate) fn number(connection: usize, key: usize, held: &str) -> Option<usize> {
    let number = held.split('.').nth(2)?.parse().ok()?;
    (value(connection, key, number) == held).then_some(number)
}

impl History {
    /// Nothing was written on so many connections.
    pub(crate) fn new(connections: usize) -> History {
        History { writes: vec![Vec::new(); connections] }
    }

    /// How many writes were acknowledged, of those that are there as far as is known.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.writes.iter().flatten().filter(|write| write.answered.is_some()).count() as u64
    }

    /// The power failed at `end`, and afterwards each key of each connection held the write of this number, 0 for none:
    /// forgets what is gone, and says what that was.
    ///
    /// # Panics
    /// If that is no state that ever was.
    pub(crate) fn settle(&mut self, found: &[[usize; KEYS]], end: Instant) -> Lost {
        let mut lost = Lost::default();
        let mut first_lost: Option<Instant> = None;
        let mut newest_there: Option<Instant> = None;
        for (connection, (writes, found)) in self.writes.iter_mut().zip(found).enumerate() {
            let there = found.iter().copied().max().unwrap_or(0);
            let sent = writes.len();
            assert!(there <= sent, "connection {connection}: write {there}, but only {sent} were sent");
            for (key, found) in found.iter().enumerate() {
                let last = writes[..there].iter().rposition(|write| write.key == key).map_or(0, |n| n + 1);
                assert_eq!(
                    *found, last,
                    "connection {connection}: write {there} is there, but what of key {key}?"
                );
            }
            let gone = writes.split_off(there);
            let answers = gone.iter().filter_map(|write| write.answered);
            lost.acknowledged += answers.clone().count() as u64;
            first_lost = first_lost.into_iter().chain(answers).min();
            lost.unconfirmed += writes.iter().filter(|write| write.answered.is_none()).count() as u64;
            newest_there = newest_there.max(writes.last().map(|write| write.asked));
            // Now they are known.
            writes.iter_mut().for_each(|write| write.answered = write.answered.or(Some(Instant::now())));
        }
        if let Some(first_lost) = first_lost {
            lost.since = end.saturating_duration_since(first_lost);
            assert!(
                newest_there.is_none_or(|newest| newest <= first_lost),
                "a write is gone whose reply had come before one that is there was sent"
            );
        }
        lost
    }
}
