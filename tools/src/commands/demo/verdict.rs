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
    /// What the new primary says that its takeover took.
    pub takeover_reported_ms: Option<f64>,
    /// Frames that the secondary sent while the primary was alive; there must be none.
    pub premature_frames: u64,
    /// The first replies that should not have been.
    pub faults: Vec<String>,
    /// How long everything took.
    pub seconds: f64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |bytes: u64| match self.guest_rx_bytes {
            0 => String::new(),
            received => format!(
                ", {:.1} % of what the guest received",
                100.0 * bytes as f64 / received as f64
            ),
        };
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<30}{value}");
        row(
            "requests answered and checked",
            HumanCount(self.requests).to_string(),
        )?;
        row(
            "acknowledged writes lost",
            format!(
                "{} of {}",
                self.acknowledged_lost,
                HumanCount(self.writes_acknowledged)
            ),
        )?;
        row(
            "connections reset",
            format!("{} of {}", self.resets, self.connections),
        )?;
        row(
            "without a primary",
            format!(
                "{:.1} ms, from kill -9 to the first packet of the new one",
                self.takeover_ms
            ),
        )?;
        row(
            "first reply after",
            format!(
                "{:.1} ms, {} requests were under way",
                self.first_reply_ms, self.under_way
            ),
        )?;
        row(
            "the guest had received",
            DecimalBytes(self.guest_rx_bytes).to_string(),
        )?;
        row(
            "log that replays it",
            format!("{}{}", DecimalBytes(self.log_bytes), part(self.log_bytes)),
        )?;
        row(
            "sent between the nodes",
            format!("{}{}", DecimalBytes(self.link_bytes), part(self.link_bytes)),
        )?;
        if self.premature_frames > 0 {
            row(
                "sent by the secondary too early",
                format!("{} packets", self.premature_frames),
            )?;
        }
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        let (primary, secondary) = (self.primary_pid, self.secondary_pid);
        if self.ok {
            write!(
                f,
                "Nothing was lost: process {primary} was killed, {secondary} went on where it was."
            )
        } else {
            write!(
                f,
                "FAILED: process {primary} was killed, and {secondary} did not go on as if it had not been."
            )
        }
    }
}
