//! Model-specific registers: which are state, and that the guest reaches no other.

use kvm_bindings::{KVM_CAP_X86_USER_SPACE_MSR, Msrs, kvm_enable_cap, kvm_msr_entry};
use kvm_ioctls::{
    Cap, MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd,
};

use super::{call, state::Msr};
use crate::cpu::CpuError;

const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const PAT: u32 = 0x277;
const STAR: u32 = 0xC000_0081;
const LSTAR: u32 = 0xC000_0082;
const CSTAR: u32 = 0xC000_0083;
const SFMASK: u32 = 0xC000_0084;
const KERNEL_GS_BASE: u32 = 0xC000_0102;

/// Plain state: saved, restored, and part of the digest. EFER, FS.base and GS.base travel with the segment registers. The
/// TSC is none of these and never will be.
pub const STATE: [u32; 9] =
    [SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP, PAT, STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE];

/// Denies the guest every MSR that is not in [`STATE`] or travels with the segment registers. A denied access leaves to the
/// machine, which knows none and stops with its name.
///
/// # Errors
/// If KVM is too old for MSR filters (Linux 5.10).
pub(super) fn filter(vm: &VmFd) -> Result<(), CpuError> {
    let mut capability = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
    capability.args[0] = u64::from(MsrExitReason::Filter.bits() | MsrExitReason::Unknown.bits());
    vm.enable_cap(&capability).map_err(call("KVM_ENABLE_CAP(X86_USER_SPACE_MSR)"))?;

    let rw = MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE;
    let range = |base, msr_count, bitmap| MsrFilterRange { flags: rw, base, msr_count, bitmap };
    vm.set_msr_filter(
        MsrFilterDefaultAction::DENY,
        &[
            range(SYSENTER_CS, 3, &[0b111]),
            range(PAT, 1, &[0b1]),
            // EFER, STAR, LSTAR, CSTAR, SFMASK.
            range(0xC000_0080, 5, &[0b1_1111]),
            // FS.base, GS.base, KERNEL_GS_BASE.
            range(0xC000_0100, 3, &[0b111]),
        ],
    )
    .map_err(call("KVM_X86_SET_MSR_FILTER"))
}

/// The capabilities that [`filter`] needs.
pub(super) const NEEDED: [Cap; 2] = [Cap::X86UserSpaceMsr, Cap::X86MsrFilter];

pub(super) fn save(vcpu: &VcpuFd) -> Result<Vec<Msr>, CpuError> {
    let mut msrs = entries(STATE.into_iter().map(|index| Msr { index, value: 0 }))?;
    let read = vcpu.get_msrs(&mut msrs).map_err(call("KVM_GET_MSRS"))?;
    match STATE.get(read) {
        Some(index) => Err(CpuError::State(format!("KVM does not tell MSR {index:#x}"))),
        None => {
            Ok(msrs.as_slice().iter().map(|entry| Msr { index: entry.index, value: entry.data }).collect())
        }
    }
}

pub(super) fn restore(vcpu: &VcpuFd, msrs: &[Msr]) -> Result<(), CpuError> {
    if !msrs.iter().map(|msr| msr.index).eq(STATE) {
        return Err(CpuError::State("its list of MSRs is not this machine's".into()));
    }
    let written = vcpu.set_msrs(&entries(msrs.iter().copied())?).map_err(call("KVM_SET_MSRS"))?;
    match msrs.get(written) {
        Some(msr) => Err(CpuError::State(format!("KVM refuses {:#x} in MSR {:#x}", msr.value, msr.index))),
        None => Ok(()),
    }
}

fn entries(msrs: impl Iterator<Item = Msr>) -> Result<Msrs, CpuError> {
    let entries: Vec<_> =
        msrs.map(|msr| kvm_msr_entry { index: msr.index, data: msr.value, ..Default::default() }).collect();
    Msrs::from_entries(&entries).map_err(|error| CpuError::State(format!("MSR list: {error:?}")))
}
