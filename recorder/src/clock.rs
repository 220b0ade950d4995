//! The host's clock, as the source of virtual time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use echovisor_event::Nanos;

/// Virtual time that runs with the host's monotonic clock from a given point on.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    since: Instant,
    from: Nanos,
}

impl HostClock {
    /// Shows `from` at the instant `since`. At a takeover these are the last time in the log and the moment when it came in,
    /// so that the guest's clock counts the outage and never goes back.
    #[must_use]
    pub fn new(from: Nanos, since: Instant) -> HostClock {
        HostClock { since, from }
    }

    /// Virtual time that starts at zero, now.
    #[must_use]
    pub fn starting() -> HostClock {
        HostClock::new(Nanos::ZERO, Instant::now())
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.from + self.since.elapsed()
    }

    /// UNIX time, in nanoseconds, of virtual time zero, by the host's wall clock.
    #[must_use]
    pub fn wall(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX).saturating_sub(self.now().0)
    }
}
