//! New namespaces for a program that is about to make a network.

use std::{
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::{LabError, program};

const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--"];
const AS_USER: [&str; 2] = ["--user", "--map-root-user"];

/// A command whose arguments are a program and its own arguments, and which runs that program in new namespaces: network, mounts,
/// processes, and a user namespace where that is what it takes. When the program is gone the kernel ends all that it has started;
/// and when the command is killed, that is the program's end.
///
/// # Errors
/// If this host lets this user make no namespaces.
pub fn enclosed() -> Result<Command, LabError> {
    static FLAGS: OnceLock<Option<Vec<&str>>> = OnceLock::new();

    let unshare = program("unshare")?;
    let with = |flags: &[&str]| {
        let mut command = Command::new(&unshare);
        command.args(flags);
        command
    };
    let works = |flags: &Vec<&str>| {
        let mut attempt = with(flags);
        attempt.arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    };
    let choices = || [NAMESPACES.to_vec(), [&AS_USER[..], &NAMESPACES[..]].concat()];
    let flags = FLAGS.get_or_init(|| choices().into_iter().find(works));
    flags.as_ref().map(|flags| with(flags)).ok_or(LabError::NoNamespaces)
}
