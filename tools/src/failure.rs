//! How a command ends.

use std::{error::Error, fmt, process::ExitCode};

use echovisor_log::store::{Damage, StoreError};

/// The exit codes of the program. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line is not understood.
    Usage = 2,
    /// A replay took another course than the recording.
    Divergence = 3,
    /// A file or a message is damaged.
    Corrupt = 4,
    /// The host lacks something that is needed.
    Unfit = 5,
}

impl Exit {
    /// How another process of this program ended.
    #[must_use]
    pub(crate) fn of_code(code: i32) -> Option<Exit> {
        use Exit::{Corrupt, Divergence, Done, Failed, Unfit, Usage};
        [Done, Failed, Usage, Divergence, Corrupt, Unfit].into_iter().find(|exit| *exit as i32 == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command could not do its work, and what the user can do about it.
#[derive(Debug)]
pub struct Failure {
    what: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
    hint: String,
    exit: Exit,
}

impl Failure {
    /// A failure with exit code 1. `hint` says what to do next, because the reader can't know.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { what: what.into(), cause: None, hint: hint.into(), exit: Exit::Failed }
    }

    /// The same failure, with the error that led to it.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure { cause: Some(cause.into()), ..self }
    }

    /// The same failure, with another exit code.
    #[must_use]
    pub fn with_exit(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn Error);
        let mut said = self.what.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors tell their source themselves.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        write!(f, "\nhint: {}", self.hint)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let hint =
            error.hint().unwrap_or("see whether the disk is well, and whether the recording is wholly there");
        let corrupt = matches!(
            error,
            StoreError::Damage(_)
                | StoreError::Header { .. }
                | StoreError::Writer { .. }
                | StoreError::Index { .. }
        );
        let exit = if corrupt { Exit::Corrupt } else { Exit::Failed };
        Failure::new(error.to_string(), hint).with_exit(exit)
    }
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Failure {
        StoreError::Damage(Box::new(damage)).into()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_failure_names_its_causes_and_says_what_to_do() {
        let failure = Failure::new("cannot open the recording", "give the folder that `record --out` wrote")
            .because(io::Error::other("no such folder"))
            .with_exit(Exit::Corrupt);
        assert_eq!(
            failure.to_string(),
            "error: cannot open the recording: no such folder\nhint: give the folder that `record --out` wrote"
        );
        assert_eq!(failure.exit(), Exit::Corrupt);
    }
}
