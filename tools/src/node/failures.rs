//! What the user can do about what the parts report.

use echovisor_log::{
    arbiter::{ArbiterError, rules::RuleError},
    link::LinkError,
};
use echovisor_machine::{MemoryError, boot::BootError, cpu::CpuError};
use echovisor_recorder::{RecordError, port::PortError, primary::NodeError};
use echovisor_replayer::secondary;
use echovisor_snapshot::{ImageError, RestoreError, store::StoreError};

use crate::failure::{Exit, Failure};

/// Where the reason is a defect of this program rather than of what it was given.
const REPORT: &str = "this should not happen: please report it, with the output of `echovisor check-host`";

impl From<CpuError> for Failure {
    fn from(error: CpuError) -> Failure {
        let (hint, exit) = match &error {
            CpuError::Open { source } => (open_hint(source.errno()), Exit::Unfit),
            CpuError::Unfit(_) => {
                ("`echovisor check-host` lists what this host offers and what is missing", Exit::Unfit)
            }
            CpuError::UnknownExit { .. } => {
                ("the guest did something that no replay could repeat; see docs/guest-abi.md", Exit::Failed)
            }
            CpuError::State(_) => ("the state comes from another version or another host", Exit::Corrupt),
            CpuError::Kvm { .. } => (REPORT, Exit::Failed),
        };
        Failure::new("the guest's processor", hint).because(error).with_exit(exit)
    }
}

fn open_hint(errno: i32) -> &'static str {
    match rustix::io::Errno::from_raw_os_error(errno) {
        rustix::io::Errno::NOENT => {
            "load the module (modprobe kvm_intel or kvm_amd), and in a virtual machine switch nested virtualisation on"
        }
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
            "join the group that owns it: sudo usermod -aG kvm $USER, then log in again"
        }
        _ => "see what `ls -l /dev/kvm` says; `echovisor check-host` tells more",
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Failure {
        Failure::new("the guest's memory", "choose another --memory, such as 64M").because(error)
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Failure {
        match error {
            BootError::Cpu(error) => error.into(),
            BootError::Memory(error) => error.into(),
            BootError::Elf(_) => Failure::new(
                "the guest cannot be loaded",
                "a guest is a static ELF program as docs/guest-abi.md describes it; a larger --memory may help if it does not fit",
            )
            .because(error)
            .with_exit(Exit::Corrupt),
            BootError::Forbidden(_) => Failure::new(
                "the guest cannot be recorded",
                "build it without that instruction: time comes from the control page (docs/guest-abi.md)",
            )
            .because(error)
            .with_exit(Exit::Corrupt),
            BootError::Arguments(_) => {
                Failure::new("the guest cannot be started", "shorten --guest-args").because(error).with_exit(Exit::Usage)
            }
            BootError::Tables(_) => Failure::new("the guest cannot be started", REPORT).because(error),
        }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Failure {
        Failure::new("the guest's network", error.hint()).because(error)
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Failure {
        let (hint, exit) = match &error {
            LinkError::Plaintext { .. } => (error.hint().unwrap_or(REPORT), Exit::Usage),
            LinkError::Fingerprint { .. } => (error.hint().unwrap_or(REPORT), Exit::Unfit),
            _ => (error.hint().unwrap_or("see whether the primary runs, and what it says"), Exit::Failed),
        };
        let hint = hint.to_owned();
        Failure::new("the link", hint).because(error).with_exit(exit)
    }
}

impl From<ArbiterError> for Failure {
    fn from(error: ArbiterError) -> Failure {
        let hint = error.hint().unwrap_or(REPORT).to_owned();
        Failure::new("the arbiter", hint).because(error)
    }
}

impl From<RuleError> for Failure {
    fn from(error: RuleError) -> Failure {
        let hint = error.hint().unwrap_or(REPORT).to_owned();
        Failure::new("the arbiter does not allow it", hint).because(error)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Failure {
        match error {
            NodeError::Store(error) => error.into(),
            NodeError::Guest(RecordError::Cpu(error)) => error.into(),
            NodeError::Guest(_) => Failure::new(
                "the guest cannot go on",
                "see whether what its network is connected to still runs",
            )
            .because(error),
            NodeError::GuestStays => Failure::new(
                "the node cannot follow",
                "its guest computes without ever asking for anything; start the node again as a secondary",
            )
            .because(error),
            NodeError::GuestDied | NodeError::Encode(_) => {
                Failure::new("the node cannot go on", REPORT).because(error)
            }
        }
    }
}

impl From<secondary::NodeError> for Failure {
    fn from(error: secondary::NodeError) -> Failure {
        match error {
            secondary::NodeError::Link(error) => error.into(),
            secondary::NodeError::Follow(error) => {
                let exit = if error.is_divergence() { Exit::Divergence } else { Exit::Failed };
                Failure::new("the guest cannot go live", REPORT).because(error).with_exit(exit)
            }
            secondary::NodeError::GuestDied | secondary::NodeError::Thread(_) => {
                Failure::new("the node cannot go on", REPORT).because(error)
            }
        }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        Failure::new(
            "the guest's state",
            "it must come from the same version of echovisor; record or join again",
        )
        .because(error)
        .with_exit(Exit::Corrupt)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let hint =
            error.hint().unwrap_or("see whether the disk is well, and whether the folder is wholly there");
        let corrupt = matches!(error, StoreError::Damage(_) | StoreError::Index { .. });
        let exit = if corrupt { Exit::Corrupt } else { Exit::Failed };
        Failure::new(error.to_string(), hint).with_exit(exit)
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Failure {
        match error {
            RestoreError::Store(error) => error.into(),
            RestoreError::Image(error) => error.into(),
            RestoreError::Memory(error) => error.into(),
            RestoreError::Cpu(error) => error.into(),
            RestoreError::Machine(_) => {
                Failure::new("the guest's state", "it comes from another version of echovisor")
                    .because(error)
                    .with_exit(Exit::Corrupt)
            }
        }
    }
}
