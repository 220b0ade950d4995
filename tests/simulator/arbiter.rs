//! The simulated arbiter: slow, unreachable, or silent about what it has done.

use echovisor_log::arbiter::{ArbiterError, Call, CasOutcome, Mode, Record};
use fastrand::Rng;

use crate::time::{MILLISECOND, Time};

/// One record, and how well it can be reached.
pub(crate) struct Arbiter {
    pub(crate) record: Option<Record>,
    rng: Rng,
    /// One call in so many is lost before it arrives, and one answer in so many on its way back; 0 for none.
    pub(crate) lossy: u32,
    /// Longest time that a call takes in each direction.
    pub(crate) slow: Time,
    /// Until when it cannot be reached.
    pub(crate) gone_until: Time,
    /// Until when the record is not where it belongs.
    pub(crate) hidden_until: Time,
}

/// What comes of a call.
pub(crate) type Outcome = Result<CasOutcome, ArbiterError>;

impl Arbiter {
    pub(crate) fn new(rng: Rng, slow: Time, lossy: u32) -> Arbiter {
        Arbiter { record: None, rng, lossy, slow, gone_until: 0, hidden_until: 0 }
    }

    /// How long a call takes in one direction.
    pub(crate) fn delay(&mut self) -> Time {
        self.rng.u64(100_000..=self.slow.max(MILLISECOND))
    }

    /// Whether a call, or an answer, gets lost now.
    pub(crate) fn loses(&mut self, now: Time) -> bool {
        now < self.gone_until || self.lossy > 0 && self.rng.u32(..self.lossy) == 0
    }

    /// What who gets no answer sees.
    pub(crate) fn silence() -> Outcome {
        Err(ArbiterError::Busy { file: "simulated".into() })
    }

    /// Carries a call out.
    pub(crate) fn carry_out(&mut self, call: Call, now: Time) -> CasOutcome {
        match call {
            _ if now < self.hidden_until => CasOutcome::Lost(None),
            Call::Read => CasOutcome::Lost(self.record),
            Call::CompareAndSet { expected, new } if self.record == Some(expected) => {
                self.record = Some(new);
                CasOutcome::Won
            }
            Call::CompareAndSet { .. } => CasOutcome::Lost(self.record),
        }
    }

    /// Whether the guest was shut down on purpose.
    pub(crate) fn ended(&self) -> bool {
        self.record.is_some_and(|record| record.mode == Mode::Ended)
    }
}
