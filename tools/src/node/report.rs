//! A node's state, as `status` tells it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use echovisor_event::{Digest, Position};
use echovisor_recorder::primary;
use echovisor_replayer::secondary::{self, Times};

use crate::control::{Role, Snapshots, Status};

/// How long a takeover took, milliseconds, and what it is made of.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Takeover {
    /// From the last sign of life to the suspicion.
    pub suspicion_ms: f64,
    /// The arbiter's answer.
    pub arbiter_ms: f64,
    /// Executing the rest of the log.
    pub replay_ms: f64,
    /// From there to the first release.
    pub release_ms: f64,
}

impl Takeover {
    /// A takeover with these times, and `release` from the end of the log until the guest ran again.
    #[must_use]
    pub fn new(times: &Times, release: Duration) -> Takeover {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        Takeover {
            suspicion_ms: milliseconds(times.suspicion),
            arbiter_ms: milliseconds(times.arbiter),
            replay_ms: milliseconds(times.replay),
            release_ms: milliseconds(release),
        }
    }

    /// From the last sign of life to the first release.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.suspicion_ms + self.arbiter_ms + self.replay_ms + self.release_ms
    }
}

/// A primary's state.
#[must_use]
pub fn of_primary(status: &primary::Status, takeover: Option<&Takeover>) -> Status {
    let mut report = Status {
        term: status.term.0,
        position: status.position.0,
        watermark: status.watermark.0,
        acknowledged: status.acknowledged.0,
        lag_ms: status.lag_ms as f64,
        protected: status.protected,
        last_checkpoint: position(status.last_checkpoint),
        divergences: status.divergences,
        guest_rx_bytes: status.guest_rx_bytes,
        guest_tx_bytes: status.guest_tx_bytes,
        log_bytes: status.log_bytes,
        link_bytes: status.link_bytes,
        takeover_ms: takeover.map(Takeover::total_ms),
        snapshots: status.snapshots.as_ref().map(snapshots),
        ..Status::new(Role::Primary)
    };
    report.more.insert("mode".into(), status.mode.clone().into());
    report.more.extend(arbiter(status.arbiter_silent.as_deref()));
    if status.history_lost {
        report.more.insert("store".into(), "the disk failed, and the guest goes on without it".into());
    }
    report.more.insert("held".into(), status.held.into());
    report.more.insert("batches".into(), status.batches.into());
    if status.deltas > 0 {
        report.more.insert("deltas".into(), status.deltas.into());
        report.more.insert("delta_pages".into(), status.delta_pages.into());
    }
    report.more.insert("refused".into(), status.refused.total().into());
    let primary::Refused { hung_up, silent, crowded_out, gibberish, unknown_key, misfit } = status.refused;
    for (reason, count) in [
        ("refused_hung_up", hung_up),
        ("refused_silent", silent),
        ("refused_crowded_out", crowded_out),
        ("refused_gibberish", gibberish),
        ("refused_unknown_key", unknown_key),
        ("refused_misfit", misfit),
    ] {
        if count > 0 {
            report.more.insert(reason.into(), count.into());
        }
    }
    report.more.extend(joining(status.joining));
    if let Some((_, digest)) = status.last_checkpoint {
        report.more.insert("last_digest".into(), digest.to_string().into());
    }
    if let Some(takeover) = takeover
        && let Ok(serde_json::Value::Object(parts)) = serde_json::to_value(takeover)
    {
        report.more.extend(parts);
    }
    report
}

/// A secondary's state.
#[must_use]
pub fn of_secondary(status: &secondary::Status) -> Status {
    let mut report = Status {
        term: status.term.0,
        position: status.position.0,
        watermark: status.watermark.0,
        acknowledged: status.watermark.0,
        protected: status.eligible,
        last_checkpoint: position(status.last_checkpoint),
        divergences: status.divergences,
        log_bytes: status.log_bytes,
        link_bytes: status.link_bytes,
        ..Status::new(Role::Secondary)
    };
    report.more.insert("mode".into(), status.mode.clone().into());
    report.more.extend(arbiter(status.arbiter_silent.as_deref()));
    report.more.insert("checkpoints".into(), status.checkpoints.into());
    report.more.extend(joining(status.joining));
    if let Some(divergence) = &status.last_divergence {
        report.more.insert("last_divergence".into(), divergence.to_string().into());
    }
    if let Some((_, digest)) = status.last_checkpoint {
        report.more.insert("last_digest".into(), digest.to_string().into());
    }
    report
}

fn snapshots(kept: &echovisor_recorder::KeeperStatus) -> Snapshots {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Snapshots {
        count: kept.count,
        bytes: kept.bytes,
        position: kept.last.map(|last| last.position.0),
        age_s: kept.last.map(|last| now.saturating_sub(last.taken)),
        segment: kept.last.map(|last| last.segment),
        ended: kept.ended.clone(),
        unfreed: kept.unfreed.clone(),
    }
}

/// How much of a state has gone over the link, and of how much, while one does: bytes of pages before compression.
fn joining(progress: Option<(u64, u64)>) -> impl Iterator<Item = (String, serde_json::Value)> {
    let numbers = progress.map(|(done, total)| [("join_done_bytes", done), ("join_total_bytes", total)]);
    numbers.into_iter().flatten().map(|(name, bytes)| (name.to_owned(), bytes.into()))
}

/// A line about the arbiter, while it leaves the node without an answer.
fn arbiter(silent: Option<&str>) -> Option<(String, serde_json::Value)> {
    silent.map(|why| ("arbiter".to_owned(), format!("gives no answer, effects wait: {why}").into()))
}

fn position(checkpoint: Option<(Position, Digest)>) -> Option<u64> {
    checkpoint.map(|(position, _)| position.0)
}
