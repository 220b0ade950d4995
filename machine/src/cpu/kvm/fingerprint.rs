//! What must be equal on two hosts for one to replay what the other recorded.

use std::{fmt, path::Path};

use echovisor_event::Digest;

use super::{cpuid, cpuid::Identity};
use crate::cpu::CpuError;

/// The part of a host that shows through to the guest: the processor's model, the CPUID table made from it, and the
/// flavour of KVM, which decides where an exit leaves the instruction pointer and what is emulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    text: String,
}

impl Fingerprint {
    /// The fingerprint of this host.
    ///
    /// # Errors
    /// If the host's processor lacks a feature that the machine offers.
    pub fn of_host() -> Result<Fingerprint, CpuError> {
        let host = Identity::of_host();
        let (family, model, stepping) = host.family_model_stepping();
        let mut table = blake3::Hasher::new();
        for entry in cpuid::table()?.as_slice() {
            for word in [entry.function, entry.eax, entry.ebx, entry.ecx, entry.edx] {
                table.update(&word.to_le_bytes());
            }
        }
        let table = table.finalize().to_hex();
        let text = format!(
            "{} family {family:#x} model {model:#x} stepping {stepping}, KVM {}, CPUID {}",
            host.vendor(),
            Flavour::of_host(),
            &table.as_str()[..16],
        );
        Ok(Fingerprint { text })
    }

    /// A hash of the text, for comparing and for headers.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*blake3::hash(self.text.as_bytes()).as_bytes())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which backend the kernel's KVM runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Intel's VT-x.
    Vmx,
    /// AMD's SVM.
    Svm,
    /// No hardware virtualisation: page tables of the guest's own, and an interpreter for its ring 0.
    Pvm,
    /// None of these.
    Unknown,
}

impl Flavour {
    /// That of this host, by the module that is loaded.
    #[must_use]
    pub fn of_host() -> Flavour {
        let loaded = |module: &str| Path::new("/sys/module").join(module).exists();
        match () {
            () if loaded("kvm_pvm") => Flavour::Pvm,
            () if loaded("kvm_intel") => Flavour::Vmx,
            () if loaded("kvm_amd") => Flavour::Svm,
            () => Flavour::Unknown,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Vmx => "vmx",
            Flavour::Svm => "svm",
            Flavour::Pvm => "pvm",
            Flavour::Unknown => "unknown",
        })
    }
}
