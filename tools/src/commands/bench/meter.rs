//! What is counted, all of it from outside of the nodes but the log: its payload and its flushes.

use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::{
    failure::Failure,
    lab::{LINK, Traffic, cpu_time},
};

/// All counters at a moment.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    at: Instant,
    link: u64,
    guest: Traffic,
    payload: u64,
    flushes: u64,
    cpu: Duration,
}

/// What was used between two moments.
pub(super) struct Spent {
    pub(super) time: Duration,
    /// Bytes on the link, both directions, with all headers.
    pub(super) link: u64,
    pub(super) guest: Traffic,
    /// Bytes of the log.
    pub(super) payload: u64,
    /// Parts of the log, each sent at once.
    pub(super) flushes: u64,
    /// The primary's processor time, that of its guest included.
    pub(super) cpu: Duration,
}

impl Reading {
    pub(super) async fn take(stage: &mut Stage) -> Result<Reading, Failure> {
        let status = stage.status().await?;
        let (payload, flushes) = (status.log_bytes, status.count("batches"));
        let cpu = cpu_time(stage.primary.pid()).map_err(|error| {
            Failure::new("the primary's processor time is unknown", "see whether it still runs")
                .because(error)
        })?;
        let site = &stage.network.primary;
        let (link, guest) = (site.namespace.traffic(LINK)?.total(), site.guest_traffic()?);
        Ok(Reading { at: Instant::now(), link, guest, payload, flushes, cpu })
    }

    pub(super) fn since(self, earlier: Reading) -> Spent {
        Spent {
            time: self.at - earlier.at,
            link: self.link - earlier.link,
            guest: self.guest - earlier.guest,
            payload: self.payload.saturating_sub(earlier.payload),
            flushes: self.flushes.saturating_sub(earlier.flushes),
            cpu: self.cpu.saturating_sub(earlier.cpu),
        }
    }
}
