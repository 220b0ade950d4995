//! When deltas are due, and when the guest is called out for one.

use std::time::{Duration, Instant};

use echovisor_log::Cause;

use crate::{policy::Policy, ticker::Ticker};

/// So many quanta a guest that makes exits may go without one. What it does meanwhile mostly ends by itself, sooner than the first
/// delta would be made: that has all which has changed since the last checkpoint, and later ones only what a quantum has changed.
const FIRST: u32 = 5;

/// What a policy makes of the guest's coming and going.
#[derive(Default)]
pub(crate) struct Pace {
    policy: Policy,
    /// Calls the guest out.
    ticker: Option<Ticker>,
    /// The log consists of deltas, and somebody reads it: when this epoch ends.
    ships: Option<Instant>,
    /// The guest has made an output since the last delta.
    output: bool,
    /// Since when the guest runs, while it does.
    entered: Option<Instant>,
    /// The guest was called out, and has made no exit since.
    computes: bool,
}

impl Pace {
    /// By this policy, with the guest called out by `ticker` where that needs it.
    pub(crate) fn new(policy: Policy, ticker: Ticker) -> Pace {
        Pace { policy, ticker: Some(ticker), ..Pace::default() }
    }

    /// What the log is made of.
    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether the log consists of deltas, which somebody reads. Then it ends where the last one leads to.
    pub(crate) fn is_shipping(&self) -> bool {
        self.ships.is_some()
    }

    /// The log consists of deltas from here on; or nobody needs them any more.
    pub(crate) fn ship(&mut self, ships: bool) {
        self.ships = ships.then(|| Instant::now() + self.policy.patience());
        self.output = false;
    }

    /// A delta was written.
    pub(crate) fn shipped(&mut self) {
        self.output = false;
        self.next_epoch(Instant::now());
    }

    /// The guest has made an output.
    pub(crate) fn output(&mut self) {
        self.output = true;
    }

    /// Why a delta is due, if one is; `lags`: whether the guest's state is another one than the last delta leads to.
    pub(crate) fn due(&self, lags: bool) -> Option<Cause> {
        match self.policy {
            Policy::Replay { .. } => None,
            Policy::Checkpoint { .. } => {
                self.epoch_left(lags).filter(Duration::is_zero).map(|_| Cause::Epoch)
            }
            Policy::Kemari => (lags && self.output).then_some(Cause::Output),
        }
    }

    /// How long the epoch goes on, if there is anything for a delta at its end.
    pub(crate) fn epoch_left(&self, lags: bool) -> Option<Duration> {
        let end = self.ships.filter(|_| lags)?;
        matches!(self.policy, Policy::Checkpoint { .. })
            .then(|| end.saturating_duration_since(Instant::now()))
    }

    /// Whether the guest is to stand still until what it has said has left.
    pub(crate) fn wait_for_release(&self) -> bool {
        self.policy == Policy::Kemari && self.is_shipping() && !self.output
    }

    /// The guest is about to run; `computes`: from where it was called out.
    pub(crate) fn enter(&mut self, now: Instant, computes: bool) {
        self.computes = computes;
        self.entered = Some(now);
        self.next_epoch(now);
        self.call_out_later();
    }

    /// The guest has come out. How long it ran, if it did.
    pub(crate) fn leave(&mut self) -> Option<Duration> {
        if let Some(ticker) = &self.ticker {
            ticker.leave();
        }
        self.entered.take().map(|entered| entered.elapsed())
    }

    /// Has the guest called out, if it makes no exit before the epoch is over, or for too long since it was entered.
    pub(crate) fn call_out_later(&self) {
        if let Some(ticker) = &self.ticker {
            let epoch = self.ships.filter(|_| matches!(self.policy, Policy::Checkpoint { .. }));
            let entered = self.entered.unwrap_or_else(Instant::now);
            // Later than time can be is never.
            if let Some(deadline) = epoch.or_else(|| entered.checked_add(self.patience())) {
                ticker.enter(deadline);
            }
        }
    }

    /// Whether the guest has made no exit for so long that it needs a position where it is.
    pub(crate) fn has_overrun(&self) -> bool {
        let patience = self.patience();
        self.is_shipping() || self.entered.is_none_or(|entered| entered.elapsed() >= patience)
    }

    /// How long the guest may go on without an exit.
    fn patience(&self) -> Duration {
        match self.policy {
            Policy::Replay { quantum } if !self.computes => quantum.saturating_mul(FIRST),
            policy => policy.patience(),
        }
    }

    /// If the epoch is over, the next one has begun; and so for all in which nothing has happened.
    fn next_epoch(&mut self, now: Instant) {
        if let (Policy::Checkpoint { epoch }, Some(end)) = (self.policy, &mut self.ships) {
            let over = now.saturating_duration_since(*end).as_nanos();
            if now >= *end {
                *end = now + epoch - Duration::from_nanos((over % epoch.as_nanos().max(1)) as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::QUANTUM;

    const LONG: Duration = Duration::from_secs(3600);

    fn under(policy: Policy) -> Pace {
        let mut pace = Pace { policy, ..Pace::default() };
        pace.ship(true);
        pace
    }

    #[test]
    fn an_epoch_ends_with_a_delta_if_anything_has_happened() {
        let pace = under(Policy::Checkpoint { epoch: LONG });
        assert_eq!(pace.due(true), None);
        assert!(pace.epoch_left(true).is_some_and(|left| !left.is_zero() && left <= LONG));
        assert_eq!(pace.epoch_left(false), None, "nothing has happened");

        let mut pace = under(Policy::Checkpoint { epoch: Duration::from_nanos(1) });
        pace.ships = Some(Instant::now());
        assert_eq!(pace.due(true), Some(Cause::Epoch));
        assert_eq!(pace.due(false), None);
        pace.ship(false);
        assert_eq!(pace.due(true), None, "nobody reads it");
    }

    #[test]
    fn epochs_in_which_nothing_has_happened_are_over_at_once() {
        let epoch = Duration::from_millis(25);
        let mut pace = under(Policy::Checkpoint { epoch });
        let end = pace.ships.expect("an epoch");
        pace.next_epoch(end + epoch * 3 + Duration::from_millis(5));
        assert_eq!(pace.ships, Some(end + epoch * 4));
        pace.next_epoch(end + epoch * 4 - Duration::from_nanos(1));
        assert_eq!(pace.ships, Some(end + epoch * 4), "it goes on");
    }

    #[test]
    fn an_output_is_a_delta_and_then_waited_for() {
        let mut pace = under(Policy::Kemari);
        assert_eq!(pace.due(true), None);
        pace.output();
        assert_eq!(pace.due(true), Some(Cause::Output));
        assert!(!pace.wait_for_release(), "it cannot leave before its delta is written");
        pace.shipped();
        assert_eq!(pace.due(true), None);
        assert!(pace.wait_for_release());
    }

    #[test]
    fn a_guest_that_is_replayed_is_called_out_after_its_quantum() {
        let mut pace = Pace { policy: Policy::Replay { quantum: LONG }, ..Pace::default() };
        pace.output();
        assert_eq!(pace.due(true), None);
        assert!(!pace.wait_for_release());
        pace.enter(Instant::now(), false);
        assert!(!pace.has_overrun());
        pace.policy = Policy::Replay { quantum: Duration::ZERO };
        assert!(pace.has_overrun());
        assert!(pace.leave().is_some() && pace.leave().is_none());
    }

    #[test]
    fn a_guest_that_makes_exits_may_go_without_one_for_longer() {
        let quantum = Duration::from_millis(10);
        let mut pace = Pace { policy: Policy::Replay { quantum }, ..Pace::default() };
        pace.enter(Instant::now(), false);
        assert_eq!(pace.patience(), quantum * FIRST);
        pace.enter(Instant::now(), true);
        assert_eq!(pace.patience(), quantum, "it was called out before");
        pace.policy = Policy::Kemari;
        pace.enter(Instant::now(), false);
        assert_eq!(pace.patience(), QUANTUM);
    }
}
