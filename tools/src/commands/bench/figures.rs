//! Figures that follow from a run, and how they are written.

use super::{results::Spread, row::Row, workload::Workload};

/// Threads that are woken between an output and its release.
const WAKE_UPS: f64 = 4.0;

pub(super) fn millis(micros: Option<f64>) -> Option<f64> {
    micros.map(|micros| micros / 1e3)
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Row {
    /// Megabits per second.
    pub(super) fn mbits(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / 1e6 / self.seconds
    }

    /// What crosses the link, megabits per second.
    pub(super) fn link_mbits(&self) -> Option<f64> {
        Some(self.mbits(self.link_bytes))
    }

    /// Bytes on the link for each byte of frames that the guest receives.
    pub(super) fn link_per_received(&self) -> Option<f64> {
        self.requests.map(|_| self.link_bytes as f64 / self.guest_rx_bytes as f64)
    }

    /// Bytes of the log for each byte of frames that the guest receives.
    pub(super) fn payload_per_received(&self) -> Option<f64> {
        self.requests.map(|_| self.payload as f64 / self.guest_rx_bytes as f64)
    }

    /// Bytes on the link for each answer.
    pub(super) fn link_per_answer(&self) -> Option<f64> {
        self.answered().map(|answered| self.link_bytes as f64 / answered)
    }

    /// None where there was none, of which nothing could be a share.
    fn answered(&self) -> Option<f64> {
        self.requests.map(|requests| (requests - self.unanswered) as f64).filter(|answered| *answered > 0.0)
    }

    /// Answers for each flush of the log.
    pub(super) fn answers_per_flush(&self) -> Option<f64> {
        self.answered().map(|answered| answered / self.flushes as f64)
    }

    /// Bytes on the link for each flush of the log, in both directions.
    pub(super) fn link_per_flush(&self) -> Option<f64> {
        Some(self.link_bytes as f64 / self.flushes as f64)
    }

    /// Megabits per second of what the load is about: what the guest sends under `send`, else what it receives.
    pub(super) fn guest_mbits(&self) -> Option<f64> {
        Some(self.mbits(match self.workload {
            Workload::Send => self.guest_tx_bytes,
            _ => self.guest_rx_bytes,
        }))
    }

    /// The least that a response time under lockstep takes more than without, µs: the log goes there and its acknowledgement back, and
    /// four threads are woken on the way: who sends and who receives, on either side.
    pub(super) fn least_delay_us(&self) -> Option<f64> {
        Some(self.round_trip_us? + WAKE_UPS * self.wake_up_us?)
    }

    /// How long the replay of what was recorded took, as a share of the time in which the guest was busy.
    pub(super) fn replay_per_busy(&self) -> Option<f64> {
        Some(self.replay_seconds? / self.busy_seconds?)
    }

    /// Link bytes for what both policies that are compared have done alike: an answer, or a second.
    pub(super) fn link_per_unit(&self) -> Option<f64> {
        match self.requests {
            Some(_) => self.link_per_answer(),
            None => Some(self.link_bytes as f64 / self.seconds),
        }
    }

    /// What the guest has done, in each second.
    pub(super) fn work(&self) -> Option<f64> {
        self.requests_per_second.or(self.iterations_per_second)
    }

    /// Bytes of memory of both nodes.
    pub(super) fn resident(&self) -> u64 {
        self.primary_rss_bytes + self.secondary_rss_bytes.unwrap_or(0)
    }
}

/// A figure with its spread, where there is one that shows.
pub(super) fn shown(spread: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return number(None);
    };
    let [least, most] = [min, max].map(|end| number(Some(end)));
    if least == most { number(Some(median)) } else { format!("{} ({least}..{most})", number(Some(median))) }
}

pub(super) fn number(figure: Option<f64>) -> String {
    figure.filter(|figure| figure.is_finite()).map_or("–".to_owned(), short)
}

/// A number with three digits that count, or all that stand before the point.
pub(super) fn short(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => format!("{figure:.0}"),
        size if size >= 9.995 => format!("{figure:.1}"),
        size if size >= 0.0995 => format!("{figure:.2}"),
        size if size >= 0.00995 => format!("{figure:.3}"),
        _ => format!("{figure:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::{policy::Policy, results::tests::row};

    #[test]
    fn who_answers_nothing_has_no_share() {
        let row = row(Policy::Kemari, Workload::Http, 1, 100);
        assert_eq!(row.link_per_unit(), Some(25.0));
        let silent = Row { unanswered: 100, ..row };
        assert_eq!((silent.link_per_unit(), silent.answers_per_flush()), (None, None));
        assert!(Row { requests: None, ..silent }.link_per_unit().is_some(), "by time");
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (12345.6, "12346"),
            (99.96, "100"),
            (12.34, "12.3"),
            (1.0, "1.00"),
            (-0.05, "-0.050"),
        ] {
            assert_eq!(short(number), text);
        }
        assert_eq!(short(0.0012), "0.0012");
    }
}
