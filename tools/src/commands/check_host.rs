//! `echovisor check-host`: what this host offers, and what is missing, with the remedy.

use std::{fmt::Write, fs, io};

use clap::Args;
use echovisor_machine::cpu::kvm::{Flavour, NEEDED};
use kvm_ioctls::Kvm;
use serde::Serialize;

use crate::{
    cli::print_result,
    failure::{Exit, Failure},
};

/// The arguments of `echovisor check-host`.
#[derive(Args, Clone, Debug)]
pub struct CheckHostArgs {
    /// Print the findings as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
struct Findings {
    /// Whether the built-in guests can run here, and be protected.
    fit: bool,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It is there.
    Ok,
    /// It is not there, or not wholly, and what does not need it works.
    Limited,
    /// It is not there, and nothing works without it.
    Missing,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, state: State::Ok, found: found.into(), remedy: None }
    }

    fn limited(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { name, state: State::Limited, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { name, state: State::Missing, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at the host.
///
/// # Errors
/// If something is missing without which no guest runs.
pub fn run(args: &CheckHostArgs) -> Result<Exit, Failure> {
    let findings = look();
    print_result(args.json, &findings, || table(&findings))?;
    if findings.fit {
        return Ok(Exit::Done);
    }
    let missing = findings.checks.iter().filter(|check| check.state == State::Missing).count();
    Err(Failure::new(
        format!("this host cannot run guests: {missing} missing"),
        "each line marked `missing` says what to do about it",
    )
    .with_exit(Exit::Unfit))
}

/// Fails, with the remedy, where there is no KVM that a guest could run on.
///
/// # Errors
/// If there is none.
pub fn require_kvm() -> Result<(), Failure> {
    match kvm_checks().into_iter().find(|check| check.state == State::Missing) {
        None => Ok(()),
        Some(Check { name, found, remedy, .. }) => {
            let what = format!("this host cannot run guests: {name}: {found}");
            Err(Failure::new(what, remedy.unwrap_or_default()).with_exit(Exit::Unfit))
        }
    }
}

fn look() -> Findings {
    let mut checks = kvm_checks();
    checks.extend([flavour(), memory(), tun(), user_namespaces()]);
    Findings { fit: checks.iter().all(|check| check.state != State::Missing), checks }
}

/// KVM itself, from the device to a virtual machine. Each check needs the one before it.
fn kvm_checks() -> Vec<Check> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            let error = io::Error::from(error);
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => {
                    "load the module (`modprobe kvm_intel` or `kvm_amd`), and see that virtualisation is on in the \
                     firmware; inside a virtual machine, let its host offer nested virtualisation"
                }
                io::ErrorKind::PermissionDenied => {
                    "become a member of the group that owns /dev/kvm (`usermod -aG kvm USER`), and log in again"
                }
                _ => "see what the kernel says about KVM (`dmesg | grep -i kvm`)",
            };
            return vec![Check::missing("KVM", format!("cannot open /dev/kvm: {error}"), remedy)];
        }
    };
    let version = kvm.get_api_version();
    if version != kvm_bindings::KVM_API_VERSION.cast_signed() {
        let remedy = "use a kernel with KVM's stable interface, which is version 12 since Linux 2.6.22";
        return vec![Check::missing("KVM", format!("/dev/kvm has version {version}"), remedy)];
    }
    let mut checks = vec![Check::ok("KVM", format!("/dev/kvm, version {version}"))];
    let lacking = NEEDED.iter().filter(|cap| !kvm.check_extension(**cap)).map(|cap| format!("{cap:?}"));
    let lacking: Vec<String> = lacking.collect();
    checks.push(if lacking.is_empty() {
        Check::ok("capabilities", format!("all {} that are needed", NEEDED.len()))
    } else {
        let remedy = "use a newer kernel: Linux 5.10 and later have all of them";
        Check::missing("capabilities", format!("KVM lacks {}", lacking.join(", ")), remedy)
    });
    checks.push(match kvm.create_vm().and_then(|vm| vm.create_vcpu(0).map(|_| ())) {
        Ok(()) => Check::ok("virtual machine", "one was made, with a vCPU"),
        Err(error) => {
            let remedy =
                "end other virtual machines; on a host with another hypervisor, unload that one first";
            Check::missing("virtual machine", format!("none can be made: {error}"), remedy)
        }
    });
    checks
}

/// Which KVM it is. All of them run the built-in guests.
fn flavour() -> Check {
    let name = "kind of KVM";
    match Flavour::of_host() {
        Flavour::Vmx => Check::ok(name, "VT-x"),
        Flavour::Svm => Check::ok(name, "SVM"),
        Flavour::Pvm => {
            let found = "PVM: built-in guests run; Linux guests do not, because it interprets their kernel";
            Check::limited(name, found, "for Linux guests, use a host with VT-x or SVM")
        }
        Flavour::Unknown => {
            let found = "unknown: neither VT-x nor SVM";
            Check::limited(name, found, "try `echovisor demo`; please report what it says")
        }
    }
}

/// Memory for a guest of the default size, and as much again for its snapshots.
const MEMORY_WANTED: u64 = 128 << 20;

fn memory() -> Check {
    let name = "memory";
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_bytes(&text));
    match available {
        Some(bytes) if bytes < MEMORY_WANTED => {
            Check::missing(name, format!("{} MiB are available", bytes >> 20), "free 128 MiB at least")
        }
        Some(bytes) => Check::ok(name, format!("{} MiB are available", bytes >> 20)),
        None => Check::limited(name, "/proc/meminfo does not say", "mount /proc"),
    }
}

fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn tun() -> Check {
    let name = "TAP networks";
    match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Check::ok(name, "/dev/net/tun can be opened"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Check::limited(name, "/dev/net/tun is not for this user", "run as root, or use `--net unix:PATH`")
        }
        Err(error) => Check::limited(
            name,
            format!("cannot open /dev/net/tun: {error}"),
            "`modprobe tun`, or use `--net unix:PATH`",
        ),
    }
}

fn user_namespaces() -> Check {
    let name = "user namespaces";
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let most = number("/proc/sys/user/max_user_namespaces");
    // Debian's kernels have this switch, others do not.
    let allowed = number("/proc/sys/kernel/unprivileged_userns_clone");
    let remedy =
        "without them, a network for TAPs needs root; `sysctl user.max_user_namespaces=10000` allows them";
    match (most, allowed) {
        (None | Some(0), _) => Check::limited(name, "none can be made", remedy),
        (_, Some(0)) => {
            let remedy = "`sysctl kernel.unprivileged_userns_clone=1` allows them to users other than root";
            Check::limited(name, "only root can make them", remedy)
        }
        (Some(most), _) => Check::ok(name, format!("up to {most}")),
    }
}

fn table(findings: &Findings) -> String {
    let mut text = String::new();
    for Check { name, state, found, remedy } in &findings.checks {
        let state = match state {
            State::Ok => "ok",
            State::Limited => "limited",
            State::Missing => "missing",
        };
        let _ = writeln!(text, "{state:<10}{name:<18}{found}");
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "{:<10}{:<18}remedy: {remedy}", "", "");
        }
    }
    text.push_str(match findings.fit {
        true => "This host can run guests and protect them.",
        false => "This host cannot run guests yet.",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_found() {
        let meminfo = "MemTotal:       24689768 kB\nMemFree:  1 kB\nMemAvailable:   24071884 kB\n";
        assert_eq!(available_bytes(meminfo), Some(24_071_884 << 10));
        for unclear in ["", "MemAvailable:", "MemAvailable: many kB", "MemAvailable: 18446744073709551615 kB"]
        {
            assert_eq!(available_bytes(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn whatever_is_not_there_has_a_remedy() {
        let findings = look();
        for check in &findings.checks {
            assert_eq!(check.state == State::Ok, check.remedy.is_none(), "{check:?}");
        }
        assert_eq!(findings.fit, require_kvm().is_ok() && memory().state != State::Missing);
    }

    #[test]
    fn findings_read_as_a_table() {
        let checks = vec![Check::ok("KVM", "there"), Check::missing("memory", "none", "buy some")];
        let expected = "ok        KVM               there\n\
                        missing   memory            none\n\
                        \x20                           remedy: buy some\n\
                        This host cannot run guests yet.";
        assert_eq!(table(&Findings { fit: false, checks }), expected);
    }
}
