//! The programs of the system that are run.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::LabError;

/// Where a program of the system is. A path stays what it is.
///
/// # Errors
/// If it is not installed.
pub fn program(name: impl AsRef<Path>) -> Result<PathBuf, LabError> {
    let name = name.as_ref();
    // Not every user has the system's own programs in the search path.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| LabError::NoProgram(name.display().to_string()))
}

/// The package of Debian that has a program.
#[must_use]
pub fn package(program: &str) -> Option<&'static str> {
    match program {
        "ip" | "tc" => Some("iproute2"),
        "timeout" => Some("coreutils"),
        "unshare" => Some("util-linux"),
        "redis-benchmark" => Some("redis-tools"),
        "wrk" => Some("wrk"),
        "rsvg-convert" => Some("librsvg2-bin"),
        _ => None,
    }
}
