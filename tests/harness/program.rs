//! The programs that the tests run.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use echovisor_tools::lab;

/// Where a scenario's inner process finds the `echovisor` that the outer one built.
pub(crate) const ECHOVISOR: &str = "ECHOVISOR_TESTS_BINARY";

/// The `echovisor` program, built from this source with the profile of the tests.
///
/// Cargo builds binaries for the tests of their own package only, so this asks it once; it is quick if nothing changed.
///
/// # Panics
/// If it does not build.
pub fn echovisor() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| env::var_os(ECHOVISOR).map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let mut command = cargo();
    // Of the whole workspace, as the tests are built: another choice of packages would have its dependencies built anew.
    command.args(["build", "--workspace", "--bin", "echovisor"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("cargo cannot be started");
    assert!(output.status.success(), "`{command:?}` failed");
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<serde_json::Value>();
    messages
        .filter_map(|message| Some(PathBuf::from(message.ok()?["executable"].as_str()?)))
        .last()
        .expect("cargo built echovisor but did not say where it is")
}

/// Cargo, standing at the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // What Cargo tells a test of its own package is a reason for the build scripts of some dependencies to compile them anew.
    for (name, _) in env::vars_os() {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"CARGO_PKG_") || bytes.starts_with(b"CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Where a program of the system is. A path stays what it is.
///
/// # Panics
/// If it is not installed; the message names the script that does it.
pub fn program(name: impl AsRef<Path>) -> PathBuf {
    let found = lab::program(name);
    found.unwrap_or_else(|error| panic!("{error}\nhint: run tests/install-packages"))
}
