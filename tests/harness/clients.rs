//! Programs that are run to their end and tell something.

use std::{ffi::OsStr, path::Path};

pub use echovisor_tools::lab::Measured;
use serde::Deserialize;

use crate::{GUEST, Lab, Namespace, echovisor};

impl Lab<'_> {
    /// Runs `redis-benchmark` against the guest, with arguments that are separated by blanks.
    ///
    /// # Panics
    /// If it fails, or if the guest answers with errors.
    pub fn redis_benchmark(&self, arguments: &str) -> Vec<Measured> {
        let arguments = ["-h", GUEST, "--csv"].into_iter().chain(arguments.split(' '));
        let finished = self.client.run("redis-benchmark", arguments);
        let (stderr, table) = (finished.stderr.clone(), finished.output());
        assert!(!stderr.contains("Error") && !table.contains("Error"), "{stderr}\n{table}");
        let rows = Measured::rows(&table);
        assert!(!rows.is_empty(), "no rows in:\n{table}");
        rows
    }
}

/// What `replay --json` found.
#[derive(Clone, Debug, Deserialize)]
pub struct Replayed {
    /// Where it began.
    pub from: u64,
    /// Where it ended.
    pub positions: u64,
    /// The digest of the state there, if it was asked for by its position.
    pub digest: Option<String>,
    /// Checkpoints compared.
    pub checkpoints: u64,
    /// Deltas that were taken over instead of executed.
    pub deltas: u64,
    /// Checkpoints at which the state was not the recorded one.
    pub mismatches: u64,
    /// How often the guest was moved into a new virtual machine.
    pub restores: u64,
    /// How long it took.
    pub seconds: f64,
    /// How long the guest was busy when it was recorded; unknown if the recording has no proper end.
    pub recorded_busy_seconds: Option<f64>,
}

impl Replayed {
    /// Replays a recording, with more arguments for `echovisor replay`, and checks that nothing differed.
    ///
    /// # Panics
    /// If the replay fails or differs.
    #[must_use]
    pub fn of(recording: &Path, more: &[&str]) -> Replayed {
        Replayed::run(recording, &[&["--verify"], more].concat())
    }

    /// The state at a position, from the last snapshot before it.
    ///
    /// # Panics
    /// If the replay fails.
    #[must_use]
    pub fn to(recording: &Path, position: u64) -> Replayed {
        Replayed::run(recording, &["--to", &position.to_string()])
    }

    fn run(recording: &Path, arguments: &[&str]) -> Replayed {
        let arguments = arguments.iter().map(OsStr::new);
        let command = ["replay", "--json"].map(OsStr::new).into_iter().chain([recording.as_os_str()]);
        let found = Namespace::new().run(echovisor(), command.chain(arguments)).output();
        let replayed: Replayed =
            serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error} in {found}"));
        assert_eq!(replayed.mismatches, 0, "{replayed:?}");
        replayed
    }

    /// The same, and checks that there was something to compare.
    ///
    /// # Panics
    /// As [`Replayed::of`], or if there was no checkpoint.
    pub fn exactly(recording: &Path, more: &[&str]) -> Replayed {
        let replayed = Replayed::of(recording, more);
        assert!(replayed.positions > 0 && replayed.checkpoints > 0, "nothing was compared: {replayed:?}");
        replayed
    }
}
