//! Virtual time, and the clocks of hosts that show it differently.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// Virtual time since the simulation's beginning, nanoseconds.
pub(crate) type Time = u64;

pub(crate) const MILLISECOND: Time = 1_000_000;
pub(crate) const SECOND: Time = 1000 * MILLISECOND;

/// Clocks run up to this much too fast or too slow, parts per million: a hundred times what a bad crystal does.
const DRIFT: u64 = 10_000;

/// A host's CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset: Time,
    /// Parts per million by which it runs, plus a million.
    rate: u64,
}

impl Clock {
    pub(crate) fn new(rng: &mut Rng) -> Clock {
        let rate = 1_000_000 - DRIFT + rng.u64(..=2 * DRIFT);
        Clock { offset: rng.u64(SECOND..1_000_000 * SECOND), rate }
    }

    /// What it shows.
    pub(crate) fn read(&self, now: Time) -> Duration {
        Duration::from_nanos(self.offset + (u128::from(now) * u128::from(self.rate) / 1_000_000) as u64)
    }

    /// When it shows at least this.
    pub(crate) fn when(&self, reading: Duration) -> Time {
        let since = (reading.as_nanos() as u64).saturating_sub(self.offset);
        (u128::from(since) * 1_000_000 / u128::from(self.rate)) as u64 + 2
    }
}

/// Moments of virtual time, for interfaces that take an [`Instant`]: only differences between them matter.
#[derive(Clone, Copy)]
pub(crate) struct Instants(Instant);

impl Instants {
    pub(crate) fn new() -> Instants {
        Instants(Instant::now())
    }

    pub(crate) fn at(self, time: Time) -> Instant {
        self.0 + Duration::from_nanos(time)
    }

    pub(crate) fn time(self, instant: Instant) -> Time {
        instant.saturating_duration_since(self.0).as_nanos() as u64
    }
}
