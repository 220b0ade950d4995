//! What a recording's end says of the whole: `DIR/summary.json`. A recording that was cut off has none.

use std::{fs, path::Path, sync::atomic::Ordering};

use echovisor_recorder::Signals;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// What is known of a recording once it is complete.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// The steps that were recorded.
    pub positions: u64,
    /// How long the guest ran, without its sleep, seconds.
    pub busy_seconds: f64,
    /// Bytes of the frames that the guest received.
    pub guest_rx_bytes: u64,
}

impl Summary {
    /// The summary of a guest that has ended.
    #[must_use]
    pub(crate) fn of(signals: &Signals) -> Summary {
        Summary {
            positions: signals.position.load(Ordering::Relaxed),
            busy_seconds: signals.busy.load(Ordering::Relaxed) as f64 / 1e9,
            guest_rx_bytes: signals.received.load(Ordering::Relaxed),
        }
    }

    /// Writes it into a recording's folder.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join("summary.json");
        let json = serde_json::to_vec(self).unwrap_or_default();
        fs::write(&path, json).map_err(|error| {
            Failure::new(format!("cannot write {}", path.display()), "see whether the disk is full")
                .because(error)
        })
    }

    /// Reads it from a recording's folder, if it is there.
    #[must_use]
    pub(crate) fn read(folder: &Path) -> Option<Summary> {
        serde_json::from_slice(&fs::read(folder.join("summary.json")).ok()?).ok()
    }
}
