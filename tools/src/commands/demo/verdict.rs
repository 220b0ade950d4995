//! What came of it.

use std::fmt;

use indicatif::{DecimalBytes, HumanCount};
use serde::Serialize;

/// What the demo found. Scripts rely on the names of the first ten fields.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Requests answered and checked.
    pub requests: u64,
    /// Writes that were acknowledged and are gone.
    pub acknowledged_lost: u64,
    /// Connections that ended before the client ended them.
    pub resets: usize,
    /// From kill -9 to the first frame of the new primary, as seen on the network.
    pub takeover_ms: f64,
    /// Bytes of frames that the guest had received when the primary was killed.
    pub guest_rx_bytes: u64,
    /// Bytes of the log until then.
    pub log_bytes: u64,
    /// Bytes on the link until then, both directions.
    pub link_bytes: u64,
    /// The process that was killed.
    pub primary_pid: u32,
    /// The process that took over.
    pub secondary_pid: u32,
    /// Whether nothing was lost, nothing was wrong, and nobody spoke out of turn.
    pub ok: bool,
    /// Repeats the run.
    pub seed: u32,
    /// Connections of the client.
    pub connections: u16,
    /// Writes among the requests.
    pub writes_acknowledged: u64,
    /// Requests under way when the primary was killed.
    pub under_way: u64,
    /// From kill -9 to the first reply on one of the connections that were there before.
    pub first_reply_ms: f64,
    /// From kill -9 until there has been a reply on each of them.
    pub all_replied_ms: f64,
    /// What the new primary says that its takeover took.
    pub takeover_reported_ms: Option<f64>,
    /// Frames that the secondary sent while the primary was alive; there must be none.
    pub premature_frames: u64,
    /// The first replies that should not have been.
    pub faults: Vec<String>,
    /// How long everything took.
    pub seconds: f64,
}

/// A delay that is not the nodes' doing, ms: so long does the client's TCP wait at least before it sends again what died
/// with the primary.
const RESENT_AFTER: f64 = 900.0;

impl Verdict {
    /// What there is to know, line by line.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let count = |number| HumanCount(number);
        let share = |bytes: u64| {
            let percent = 100.0 * bytes as f64 / self.guest_rx_bytes.max(1) as f64;
            format!("{}, {percent:.1} % of that", DecimalBytes(bytes))
        };
        let (lost, writes) = (count(self.acknowledged_lost), count(self.writes_acknowledged));
        let mut rows = vec![
            ("requests answered and checked", count(self.requests).to_string()),
            ("acknowledged writes lost", format!("{lost} of {writes}")),
            ("connections reset", format!("{} of {}", self.resets, self.connections)),
            ("first packet after the kill", format!("{:.1} ms", self.takeover_ms)),
            ("first reply after the kill", format!("{:.1} ms", self.first_reply_ms)),
            ("every connection goes on after", format!("{:.1} ms", self.all_replied_ms)),
            ("received by the guest", DecimalBytes(self.guest_rx_bytes).to_string()),
            ("log that replays it", share(self.log_bytes)),
            ("sent between the nodes", share(self.link_bytes)),
        ];
        if self.all_replied_ms >= RESENT_AFTER {
            rows[5].1 += "; TCP waits a second before it resends what died with the primary";
        }
        if self.premature_frames > 0 {
            rows.push(("sent by the secondary too early", format!("{} packets", self.premature_frames)));
        }
        rows
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.rows() {
            writeln!(f, "  {name:<33}{value}")?;
        }
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        let (primary, secondary) = (self.primary_pid, self.secondary_pid);
        if self.ok {
            write!(f, "Nothing was lost: process {primary} was killed, and {secondary} went on where it was.")
        } else {
            write!(
                f,
                "FAILED: process {primary} was killed, and {secondary} did not go on as if nothing had happened."
            )
        }
    }
}
