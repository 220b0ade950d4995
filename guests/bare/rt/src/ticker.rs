//! A periodic deadline in virtual time.

use crate::control;

/// Tells how many periods have passed. Periods do not drift, and none is lost when the guest was late.
pub struct Ticker {
    period: u64,
    next: u64,
}

impl Ticker {
    /// The first tick comes a `period`, in ns, from now.
    pub fn new(period: u64) -> Self {
        Self { period, next: control::clock() + period }
    }

    /// Waits at most until the next tick; returns how many have passed since the last call, none if input came first.
    pub fn wait(&mut self) -> u64 {
        control::wait(Some(self.next));
        let Some(late) = control::clock().checked_sub(self.next) else {
            return 0;
        };
        let ticks = late / self.period + 1;
        self.next += ticks * self.period;
        ticks
    }
}
