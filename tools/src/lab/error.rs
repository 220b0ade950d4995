//! Why a network for experiments could not be had.

use std::{io, process::ExitStatus};

use super::program::package;
use crate::failure::{Exit, Failure};

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program of the system is missing.
    #[error("`{0}` is not installed")]
    NoProgram(String),
    /// A program cannot be started.
    #[error("cannot start `{program}`")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program that sets the network up has failed.
    #[error("`{command}` failed ({status}): {said}")]
    Command {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last words.
        said: String,
    },
    /// This user may make no namespaces.
    #[error("this host lets this user make no namespaces")]
    NoNamespaces,
    /// The kernel refuses a namespace.
    #[error("a network namespace cannot be {0}")]
    Namespace(&'static str, #[source] io::Error),
    /// The kernel has no figures.
    #[error("{0} does not say what it should")]
    Figures(String),
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Failure {
        let hint = match &error {
            LabError::NoProgram(name) => match package(name) {
                Some(package) => format!("it is in Debian's package {package}: apt-get install {package}"),
                None => "install it, or add its folder to PATH".to_owned(),
            },
            LabError::Start { .. } => "see whether the limit of processes (`ulimit -u`) is reached".to_owned(),
            LabError::Command { .. } => {
                "the kernel may lack TAP devices, bridges, veth pairs or tbf; `echovisor check-host` says more"
                    .to_owned()
            }
            LabError::NoNamespaces => "run it as root, or allow user namespaces: sysctl user.max_user_namespaces, \
                                       kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns"
                .to_owned(),
            LabError::Namespace(..) | LabError::Figures(_) => {
                "see whether /proc is mounted, and whether the limit of open files (`ulimit -n`) is reached".to_owned()
            }
        };
        let unfit =
            matches!(error, LabError::NoProgram(_) | LabError::NoNamespaces | LabError::Command { .. });
        Failure::new("the network of namespaces cannot be used", hint).because(error).with_exit(if unfit {
            Exit::Unfit
        } else {
            Exit::Failed
        })
    }
}
