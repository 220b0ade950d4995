//! Clients outside: each sends a request, again and again until it is answered, and then the next one.

use fastrand::Rng;

use crate::{
    oracles::Answer,
    time::{MILLISECOND, Time},
};

pub(crate) struct Clients {
    rng: Rng,
    /// Longest time from an answer to the next request.
    thought: Time,
    outstanding: Vec<Option<u64>>,
    /// When each client looks next; earlier appointments are void.
    due: Vec<Time>,
    next: u64,
    /// Requests up to this one were first sent before the faults ended.
    pub(crate) old: u64,
    /// Requests that were first sent after the faults ended, and answered.
    pub(crate) fresh: u64,
    pub(crate) answered: u64,
}

impl Clients {
    pub(crate) fn new(rng: Rng, count: usize, thought: Time) -> Clients {
        Clients {
            rng,
            thought,
            outstanding: vec![None; count],
            due: vec![0; count],
            next: 1,
            old: u64::MAX,
            fresh: 0,
            answered: 0,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.outstanding.len()
    }

    /// The faults have ended.
    pub(crate) fn healed(&mut self) {
        self.old = self.next - 1;
    }

    /// What this client sends now, and when it looks again; nothing if it is not its time.
    pub(crate) fn send(&mut self, client: usize, now: Time) -> Option<(u64, Time)> {
        if self.due[client] != now {
            return None;
        }
        let request = *self.outstanding[client].get_or_insert_with(|| {
            self.next += 1;
            self.next - 1
        });
        self.due[client] = now + self.rng.u64(150 * MILLISECOND..400 * MILLISECOND);
        Some((request, self.due[client]))
    }

    /// An answer comes in; who asked for it asks for something else at that time.
    pub(crate) fn hear(&mut self, answer: Answer, now: Time) -> Option<(usize, Time)> {
        let client = self.outstanding.iter().position(|request| *request == Some(answer.request))?;
        self.outstanding[client] = None;
        self.answered += 1;
        self.fresh += u64::from(answer.request > self.old);
        self.due[client] = now + self.rng.u64(MILLISECOND..self.thought);
        Some((client, self.due[client]))
    }
}
