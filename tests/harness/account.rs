//! What a fault has cost, however often it was provoked: a row of a table.

use std::time::Duration;

use crate::{Status, Verdict};

/// The rounds of one fault.
#[derive(Debug)]
pub struct Account {
    fault: &'static str,
    rounds: u64,
    replies: u64,
    writes: u64,
    lost: u64,
    resets: u64,
    /// Milliseconds.
    takeovers: Vec<f64>,
    /// Milliseconds.
    silences: Vec<f64>,
}

impl Account {
    /// An account of a fault that has not happened yet.
    #[must_use]
    pub fn of(fault: &'static str) -> Account {
        Account {
            fault,
            rounds: 0,
            replies: 0,
            writes: 0,
            lost: 0,
            resets: 0,
            takeovers: Vec::new(),
            silences: Vec::new(),
        }
    }

    /// It happened. The clients waited for so long; who runs the guest then says how long a takeover took, if there was one.
    pub fn round(&mut self, silence: Duration, survivor: &Status) {
        self.rounds += 1;
        self.silences.push(silence.as_secs_f64() * 1000.0);
        self.takeovers.extend(survivor.takeover_ms);
        let takeover = survivor.takeover_ms.map_or(String::new(), |time| format!(", takeover {time:.1} ms"));
        println!("{}, {}: silence {} ms{takeover}", self.fault, self.rounds, silence.as_millis());
    }

    /// A load has ended, and its clients noticed nothing but pauses.
    ///
    /// # Panics
    /// If they did.
    pub fn clients(&mut self, verdict: &Verdict) {
        verdict.must_be_clean();
        self.replies += verdict.tally.replies;
        self.writes += verdict.tally.writes_acknowledged;
        self.lost += verdict.tally.acknowledged_lost;
        self.resets += verdict.resets;
    }

    /// Prints the row, with its header. Nothing is asserted about the times: they depend on the host.
    pub fn print(&self) {
        let Account { fault, rounds, replies, writes, lost, resets, takeovers, silences } = self;
        println!(
            "| fault | times | replies checked | writes acknowledged | lost | resets | takeover ms, median | max | silence ms, median | max |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        let (takeover, silence) = (spread(takeovers), spread(silences));
        println!(
            "| {fault} | {rounds} | {replies} | {writes} | {lost} | {resets} | {takeover} | {silence} |"
        );
    }
}

/// Median and maximum, as two columns.
fn spread(values: &[f64]) -> String {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match (values.get(values.len() / 2), values.last()) {
        (Some(median), Some(max)) => format!("{median:.1} | {max:.1}"),
        _ => "- | -".to_owned(),
    }
}
