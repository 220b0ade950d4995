//! What was recorded is replayed: how long that takes.

use std::{path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::time::timeout;

use super::stage::Props;
use crate::failure::Failure;

/// How long a replay may take. A recording of the bench has seconds, and takes less to replay.
const PATIENCE: Duration = Duration::from_secs(600);

/// A replay of a whole recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rerun {
    /// How long it took.
    pub(super) seconds: f64,
    /// How long the guest was busy when it was recorded.
    pub(super) busy: f64,
}

/// Of what `echovisor replay --json` prints, what is needed here.
#[derive(Deserialize)]
struct Verdict {
    seconds: f64,
    recorded_busy_seconds: Option<f64>,
}

impl Rerun {
    /// Replays a recording from its beginning to its end, where the primary was.
    pub(super) async fn of(recording: &Path, props: Props<'_>) -> Result<Rerun, Failure> {
        let mut command = std::process::Command::new(props.program);
        command.arg("replay").arg(recording).arg("--json").stdin(Stdio::null());
        props.placement.pin(&mut command, true);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let failed =
            |what: &str| Failure::new(what, "please report it, with the command that was given, and keep it");
        let output = match timeout(PATIENCE, command.output()).await {
            Err(_) => return Err(failed("the replay of what was recorded does not end")),
            Ok(output) => output.map_err(|error| {
                let hint = "see whether the limit of processes (`ulimit -u`) is reached";
                Failure::new("cannot start the replay of what was recorded", hint).because(error)
            })?,
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(&format!("the replay of what was recorded failed: {}", said.trim())));
        }
        Rerun::read(&output.stdout).ok_or_else(|| failed("the replay of what was recorded tells no times"))
    }

    fn read(printed: &[u8]) -> Option<Rerun> {
        let Verdict { seconds, recorded_busy_seconds } = serde_json::from_slice(printed).ok()?;
        Some(Rerun { seconds, busy: recorded_busy_seconds? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_without_an_end_tells_no_times() {
        let printed =
            br#"{"from":0,"positions":12,"seconds":1.5,"recorded_busy_seconds":4.5,"end":"stopped"}"#;
        assert_eq!(Rerun::read(printed), Some(Rerun { seconds: 1.5, busy: 4.5 }));
        assert_eq!(Rerun::read(br#"{"seconds":1.5,"recorded_busy_seconds":null}"#), None);
        assert_eq!(Rerun::read(b"error"), None);
    }
}
