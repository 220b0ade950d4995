//! Tells on stderr what is happening, while it is happening.

use std::{
    fmt,
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::output;

/// Steps of the progress bar.
const STEPS: f64 = 1000.0;

/// How often the bar moves, at most: often enough to look alive.
const PERIOD: Duration = Duration::from_millis(100);

/// Writes a line for each thing that happens, with the time since the start, above a bar that moves.
pub(super) struct Teller {
    started: Instant,
    bar: ProgressBar,
    moved: Instant,
}

impl Teller {
    pub(super) fn new() -> Teller {
        let bar = ProgressBar::new(STEPS as u64);
        // The template is a constant; were it wrong, the bar would have its default look.
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}") {
            bar.set_style(style);
        }
        Teller { started: Instant::now(), bar, moved: Instant::now() }
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells one thing that has happened.
    pub(super) fn tell(&self, what: impl fmt::Display) {
        let seconds = self.elapsed().as_secs_f64();
        self.bar.suspend(|| output::say(format_args!("{seconds:7.2} s  {what}")));
    }

    /// Shows how far the load is: its share from 0 to 1, and how many replies have been checked.
    pub(super) fn progress(&mut self, share: f64, replies: u64) {
        if self.moved.elapsed() >= PERIOD {
            self.moved = Instant::now();
            self.bar.set_message(format!("{} replies checked", HumanCount(replies)));
            self.bar.set_position((share * STEPS) as u64);
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
