//! What losses of power have cost: a row of a table.

use std::time::Duration;

use crate::{
    disk::Cut,
    history::{History, Lost},
};

/// All losses of power under one promise.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// How often the power has failed.
    pub(crate) losses: u64,
    /// How often of these the guest was not up yet.
    in_start: u64,
    /// How often the disk then lacked something that had been written to it.
    torn: u64,
    /// Writes that were acknowledged, by guests that have ended or before they were lost.
    acknowledged: u64,
    /// Of the loads that lost any.
    rollbacks: Vec<Lost>,
    /// Writes that were there though nobody had been told.
    unconfirmed: u64,
}

impl Account {
    /// The power has failed, of a guest that clients had reached or not.
    pub(crate) fn lost(&mut self, cut: &Cut, was_up: bool, history: &History) {
        self.losses += 1;
        self.in_start += u64::from(!was_up);
        self.torn += u64::from(cut.survived < cut.unflushed);
        let acknowledged = history.acknowledged();
        let Cut { unflushed, survived } = cut;
        println!(
            "{}: {}, {acknowledged} writes acknowledged, {survived} of {unflushed} unflushed bytes survived",
            self.losses,
            if was_up { "under load" } else { "in its start" }
        );
    }

    /// The guest is back.
    pub(crate) fn found(&mut self, lost: &Lost) {
        let Lost { acknowledged, since, unconfirmed } = lost;
        print!("    back: {acknowledged} acknowledged writes lost");
        println!(", of the last {} ms; {unconfirmed} there, unacknowledged", since.as_millis());
        self.acknowledged += acknowledged;
        self.unconfirmed += unconfirmed;
        if *acknowledged > 0 {
            self.rollbacks.push(*lost);
        }
    }

    /// The guest has ended, with this history.
    pub(crate) fn ended(&mut self, history: &History) {
        self.acknowledged += history.acknowledged();
    }

    /// Writes that were acknowledged, and are gone.
    pub(crate) fn acknowledged_lost(&self) -> u64 {
        self.rollbacks.iter().map(|lost| lost.acknowledged).sum()
    }

    /// Prints the row, with its header.
    pub(crate) fn print(&self, promise: &str) {
        let Account { losses, in_start, torn, acknowledged, rollbacks, unconfirmed } = self;
        let mut since: Vec<Duration> = rollbacks.iter().map(|lost| lost.since).collect();
        since.sort();
        let since = since.get(since.len() / 2).zip(since.last()).map_or_else(
            || "- | -".to_owned(),
            |(median, longest)| format!("{} | {}", median.as_millis(), longest.as_millis()),
        );
        println!(
            "| | losses of power | in its start | with data lost in the disk's cache | writes acknowledged | lost | in so many losses | ms, median | max | there, though not acknowledged |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        println!(
            "| {promise} | {losses} | {in_start} | {torn} | {acknowledged} | {} | {} | {since} | {unconfirmed} |",
            self.acknowledged_lost(),
            rollbacks.len(),
        );
    }
}
