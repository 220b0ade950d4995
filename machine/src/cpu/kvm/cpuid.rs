//! The processor that the guest sees: one fixed table.

use std::arch::x86_64::__cpuid_count;

use crate::cpu::CpuError;
use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const fn bits(positions: &[u32]) -> u32 {
    let mut mask = 0;
    let mut index = 0;
    while index < positions.len() {
        mask |= 1 << positions[index];
        index += 1;
    }
    mask
}

/// Leaf 1 EDX: FPU DE PSE MSR PAE CX8 SEP PGE CMOV PAT CLFSH MMX FXSR SSE SSE2. No TSC, no APIC.
const LEAF1_EDX: u32 = bits(&[0, 2, 3, 5, 6, 8, 11, 13, 15, 16, 19, 23, 24, 25, 26]);
/// Leaf 1 ECX: SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT. No XSAVE, so no AVX; no RDRAND; no hypervisor, so no PV clock.
const LEAF1_ECX: u32 = bits(&[0, 9, 13, 19, 20, 23]);
/// Leaf 0x8000_0001 EDX: SYSCALL NX LM. No RDTSCP.
const EXTENDED_EDX: u32 = bits(&[11, 20, 29]);
/// Width of guest-physical and linear addresses, leaf 0x8000_0008 EAX.
const ADDRESS_BITS: u32 = 48 << 8 | 40;

/// The table: an allow-list of features that every x86-64-v2 processor has, under the host's own vendor and model, because
/// what instructions do where manuals say "undefined" differs between models.
///
/// # Errors
/// If the host lacks one of the features; the message names its leaf and bits.
pub(super) fn table() -> Result<CpuId, CpuError> {
    let host = Identity::of_host();
    let entry = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    let [vendor_b, vendor_c, vendor_d] = host.vendor_words;
    let entries = [
        entry(0, 7, vendor_b, vendor_c, vendor_d),
        // EBX: a CLFLUSH line of 8 quadwords.
        entry(1, host.signature, 8 << 8, LEAF1_ECX, LEAF1_EDX),
        entry(7, 0, 0, 0, 0),
        entry(0x8000_0000, 0x8000_0008, vendor_b, vendor_c, vendor_d),
        entry(0x8000_0001, host.signature, 0, 0, EXTENDED_EDX),
        entry(0x8000_0008, ADDRESS_BITS, 0, 0, 0),
    ];
    // Asked of the processor, not of KVM_GET_SUPPORTED_CPUID: where KVM interprets ring 0 that lists what its interpreter
    // knows, while ring 3, where bare guests live, has all of the processor.
    for wanted in entries.iter().filter(|entry| matches!(entry.function, 1 | 0x8000_0001)) {
        let found = __cpuid_count(wanted.function, 0);
        let (ecx, edx) = (wanted.ecx & !found.ecx, wanted.edx & !found.edx);
        if ecx != 0 || edx != 0 {
            return Err(CpuError::Unfit(format!(
                "this host's processor lacks CPUID leaf {:#x} ECX {ecx:#x} EDX {edx:#x}, which every x86-64-v2 processor has",
                wanted.function,
            )));
        }
    }
    CpuId::from_entries(&entries).map_err(|error| CpuError::State(format!("CPUID table: {error:?}")))
}

/// Who the host's processor says it is.
pub(super) struct Identity {
    /// EBX, ECX, EDX of leaf 0.
    vendor_words: [u32; 3],
    /// EAX of leaf 1: family, model, stepping.
    signature: u32,
}

impl Identity {
    pub(super) fn of_host() -> Identity {
        let leaf0 = __cpuid_count(0, 0);
        Identity { vendor_words: [leaf0.ebx, leaf0.ecx, leaf0.edx], signature: __cpuid_count(1, 0).eax }
    }

    /// Such as `AuthenticAMD`.
    pub(super) fn vendor(&self) -> String {
        let [b, c, d] = self.vendor_words.map(u32::to_le_bytes);
        String::from_utf8_lossy(&[b, d, c].concat()).into_owned()
    }

    /// Family, model and stepping (Intel SDM vol. 2A, CPUID, figure 3-6).
    pub(super) fn family_model_stepping(&self) -> (u32, u32, u32) {
        let field = |shift: u32, mask: u32| self.signature >> shift & mask;
        let (family, model) = (field(8, 0xf), field(4, 0xf));
        let extended = if family == 0xf { field(20, 0xff) } else { 0 };
        let model = if matches!(family, 0x6 | 0xf) { field(16, 0xf) << 4 | model } else { model };
        (family + extended, model, field(0, 0xf))
    }
}
