//! Builds the bare guests in `bare/`, a workspace of its own, so that they can be included as bytes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// The guests' own target. Naming it keeps their flags away from build scripts, even when it is the host's.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Flags that make programs without a system under them: static, at fixed addresses, laid out by `link.ld`, and without
/// whatever a C library would bring or expect.
const FLAGS: &[&str] = &[
    "-Crelocation-model=static",
    // Neither AVX nor anything else that the machine's CPUID does not promise.
    "-Ctarget-cpu=x86-64",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    // Would differ from build to build for no reason that matters here.
    "-Clink-arg=-Wl,--build-id=none",
    // Would move data that is written once into a segment of its own.
    "-Clink-arg=-Wl,-z,norelro",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
];

/// Variables of cargo that concern the way to the sources, not what becomes of them.
const KEPT: &[&str] =
    &["CARGO_HOME", "CARGO_HTTP_", "CARGO_MAKEFLAGS", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];

fn main() {
    let bare = variable("CARGO_MANIFEST_DIR").join("bare");
    // Each part by name: the folder itself would include the `target` of whoever builds there by hand.
    for part in sources(&bare) {
        println!("cargo::rerun-if-changed={}", part.display());
    }
    let target_dir = variable("OUT_DIR").join("bare");
    build(&bare, &target_dir);
    let images = target_dir.join(TARGET).join("release");
    println!("cargo::rustc-env=GUEST_IMAGES={}", images.display());
}

/// Builds all guests in release mode.
fn build(bare: &Path, target_dir: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(bare).args(["build", "--bins", "--release", "--locked", "--target", TARGET]);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_foreign) {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_TARGET_DIR", target_dir);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(bare).join("\x1f"));
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{cargo:?} failed: {status}")),
        Err(error) => fail(&format!("{cargo:?} does not start: {error}")),
    }
}

/// Whether a variable of the outer build would change the guests: its flags, profile, target, or the program that it puts
/// in place of the compiler (clippy's, or an editor's that compiles nothing).
fn is_foreign(name: &str) -> bool {
    let ours = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
    ours || matches!(name, "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER" | "RUSTC_BOOTSTRAP")
}

/// The flags, with the folders of this machine mapped away, so that they do not appear in the guests.
fn flags(bare: &Path) -> Vec<String> {
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| flag.to_string()).collect();
    flags.push(format!("-Clink-arg=-Wl,-T,{}", bare.join("link.ld").display()));
    flags.push(format!("--remap-path-prefix={}=/guests", bare.display()));
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))) {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags
}

/// Everything in the guests' workspace but what a build leaves there.
fn sources(bare: &Path) -> Vec<PathBuf> {
    let entries = match bare.read_dir() {
        Ok(entries) => entries.flatten().map(|entry| entry.path()),
        Err(error) => fail(&format!("{} is not readable: {error}", bare.display())),
    };
    entries.filter(|path| !path.ends_with("target")).collect()
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> PathBuf {
    match env::var_os(name) {
        Some(value) => value.into(),
        None => fail(&format!("{name} is not set: cargo runs this program")),
    }
}

/// Ends the build with a reason.
fn fail(reason: &str) -> ! {
    println!("cargo::error=the bare guests were not built: {reason}");
    println!(
        "cargo::error=hint: the compiler's own words are above; `rustup target add {TARGET}` if the target is missing"
    );
    exit(1)
}
