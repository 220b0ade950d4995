//! A vCPU of the Linux kernel's KVM.
//!
//! The machine keeps its own devices, so there is no in-kernel interrupt controller or timer: their state would change at
//! moments that no log knows.

mod cpuid;
mod fingerprint;
mod kick;
pub mod msr;
mod state;

use std::{ptr::NonNull, sync::atomic::Ordering};

use kvm_bindings::{
    KVM_MEM_LOG_DIRTY_PAGES, kvm_mp_state, kvm_run, kvm_userspace_memory_region, kvm_xcr, kvm_xcrs,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuExit, VcpuFd, VmFd};

pub use self::{
    fingerprint::{Fingerprint, Flavour},
    kick::Kicker,
    state::{DebugRegs, Events, Exception, Fpu, Interrupt, KvmState, Msr, Nmi, Regs, Segment, Sregs, Table},
};
use super::{Cpu, CpuError, CpuState, Exit, Kick, Reason};
use crate::{memory::Memory, pages::PageSet};

/// A virtual machine of KVM with one vCPU.
pub struct KvmCpu {
    vcpu: VcpuFd,
    /// The page that `vcpu` shares with the kernel.
    run: NonNull<kvm_run>,
    kicker: Kicker,
    flavour: Flavour,
    privileged: Privileged,
    /// Whether `run` shows the registers as they are: since an instruction was completed.
    shown: bool,
    // KVM maps the guest's memory until the VM is gone: fields are dropped in order.
    vm: VmFd,
    memory: Memory,
}

// SAFETY: `run` points into a mapping that `vcpu` owns and that moves between threads with it.
unsafe impl Send for KvmCpu {}

/// What only ring 0 can change. There a bare guest executes nothing but the machine's stubs, which leave it as it is; to ask KVM for
/// each of it would take a third of a checkpoint's pause.
#[derive(Clone)]
struct Privileged {
    debug: DebugRegs,
    xcr0: u64,
    msrs: Vec<Msr>,
    mp_state: u32,
}

impl Privileged {
    fn read(vcpu: &VcpuFd) -> Result<Privileged, CpuError> {
        let xcrs = vcpu.get_xcrs().map_err(call("KVM_GET_XCRS"))?;
        let xcr0 = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize).find(|xcr| xcr.xcr == 0);
        Ok(Privileged {
            debug: vcpu.get_debug_regs().map_err(call("KVM_GET_DEBUGREGS"))?.into(),
            xcr0: xcr0.map_or(1, |xcr| xcr.value),
            msrs: msr::save(vcpu)?,
            mp_state: vcpu.get_mp_state().map_err(call("KVM_GET_MP_STATE"))?.mp_state,
        })
    }
}

/// The capabilities without which the machine does not start.
pub const NEEDED: &[Cap] = &[
    Cap::UserMemory,
    Cap::ImmediateExit,
    Cap::SyncRegs,
    Cap::ExtCpuid,
    Cap::MpState,
    Cap::VcpuEvents,
    Cap::Debugregs,
    Cap::Xcrs,
    Cap::Xsave,
    msr::NEEDED[0],
    msr::NEEDED[1],
];

/// The type of a task state segment that is not busy. SVM does not look whether the one in use is, and KVM always reports
/// that it is; but the SVM that QEMU emulates takes a busy one for none, and closes all ports.
const AVAILABLE_TSS: u8 = 9;

impl KvmCpu {
    /// Opens `/dev/kvm`, checks what it offers, and makes a virtual machine with `memory`.
    ///
    /// # Errors
    /// If there is no KVM, no permission to use it, or it lacks something that the machine needs.
    pub fn new(memory: &Memory) -> Result<KvmCpu, CpuError> {
        let kvm = open()?;
        let vm = kvm.create_vm().map_err(call("KVM_CREATE_VM"))?;
        // Three pages below the BIOS that VT-x without unrestricted guest needs; no RAM of ours is there.
        vm.set_tss_address(0xFFFB_D000).map_err(call("KVM_SET_TSS_ADDR"))?;
        msr::filter(&vm)?;
        set_memory(&vm, memory, 0)?;
        let mut vcpu = vm.create_vcpu(0).map_err(call("KVM_CREATE_VCPU"))?;
        vcpu.set_cpuid2(&cpuid::table()?).map_err(call("KVM_SET_CPUID2"))?;
        let run = NonNull::from(vcpu.get_kvm_run());
        show(run, SHOWN_AT_EXITS);
        let (kicker, flavour) = (Kicker::new(run), Flavour::of_host());
        let privileged = Privileged::read(&vcpu)?;
        Ok(KvmCpu { vcpu, run, kicker, flavour, privileged, shown: false, vm, memory: memory.clone() })
    }

    /// The registers and the rest of the state, all of it as KVM tells it; at a boundary only.
    ///
    /// # Errors
    /// If KVM refuses to tell.
    pub fn state(&self) -> Result<KvmState, CpuError> {
        self.state_with(self.registers()?, Privileged::read(&self.vcpu)?)
    }

    fn state_with(
        &self,
        (regs, sregs, events): (Regs, Sregs, Events),
        Privileged { debug, xcr0, msrs, mp_state }: Privileged,
    ) -> Result<KvmState, CpuError> {
        let fpu = (&self.vcpu.get_xsave().map_err(call("KVM_GET_XSAVE"))?).into();
        Ok(KvmState { regs, sregs, fpu, debug, xcr0, msrs, mp_state, events })
    }

    fn registers(&self) -> Result<(Regs, Sregs, Events), CpuError> {
        Ok((
            self.vcpu.get_regs().map_err(call("KVM_GET_REGS"))?.into(),
            self.vcpu.get_sregs().map_err(call("KVM_GET_SREGS"))?.into(),
            self.vcpu.get_vcpu_events().map_err(call("KVM_GET_VCPU_EVENTS"))?.into(),
        ))
    }

    /// Replaces the whole state.
    ///
    /// # Errors
    /// If KVM refuses a part of it.
    pub fn set_state(&mut self, state: &KvmState) -> Result<(), CpuError> {
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: state.xcr0 };
        // Segments and EFER first: what the other calls accept depends on the mode.
        let mut sregs = state.sregs;
        if self.flavour == Flavour::Svm {
            sregs.tr.type_ = AVAILABLE_TSS;
        }
        self.vcpu.set_sregs(&sregs.into()).map_err(call("KVM_SET_SREGS"))?;
        self.vcpu.set_regs(&state.regs.into()).map_err(call("KVM_SET_REGS"))?;
        self.vcpu.set_xcrs(&xcrs).map_err(call("KVM_SET_XCRS"))?;
        // SAFETY: without features enabled by arch_prctl the state is no larger than `struct kvm_xsave`.
        unsafe { self.vcpu.set_xsave(&(&state.fpu).into()) }.map_err(call("KVM_SET_XSAVE"))?;
        self.vcpu.set_debug_regs(&state.debug.into()).map_err(call("KVM_SET_DEBUGREGS"))?;
        msr::restore(&self.vcpu, &state.msrs)?;
        let mp_state = kvm_mp_state { mp_state: state.mp_state };
        self.vcpu.set_mp_state(mp_state).map_err(call("KVM_SET_MP_STATE"))?;
        self.vcpu.set_vcpu_events(&state.events.into()).map_err(call("KVM_SET_VCPU_EVENTS"))?;
        self.privileged = Privileged::read(&self.vcpu)?;
        self.shown = false;
        Ok(())
    }
}

impl Cpu for KvmCpu {
    fn enter(&mut self) -> Result<Exit<'_>, CpuError> {
        self.shown = false;
        if self.kicker.begin() {
            let kicked = Exit { rip: rip(self.run), reason: Reason::Kicked };
            return Ok(self.complete()?.unwrap_or(kicked));
        }
        let exit = run(&mut self.vcpu, self.run)?;
        if matches!(exit.reason, Reason::Kicked) {
            self.kicker.answer();
        }
        Ok(exit)
    }

    fn complete(&mut self) -> Result<Option<Exit<'_>>, CpuError> {
        // Whoever completes an instruction often wants the state: shown with this exit, it costs no calls.
        show(self.run, SHOWN_AT_EXITS | SyncReg::SystemRegister as u64 | SyncReg::VcpuEvents as u64);
        let immediate_exit = kick::immediate_exit(self.run);
        immediate_exit.store(1, Ordering::SeqCst);
        let exit = run(&mut self.vcpu, self.run)?;
        immediate_exit.store(0, Ordering::SeqCst);
        show(self.run, SHOWN_AT_EXITS);
        self.shown = matches!(exit.reason, Reason::Kicked);
        Ok((!self.shown).then_some(exit))
    }

    fn kicker(&self) -> Box<dyn Kick> {
        Box::new(self.kicker.clone())
    }

    fn save(&self) -> Result<CpuState, CpuError> {
        let registers = if self.shown {
            let shown = self.vcpu.sync_regs();
            (shown.regs.into(), shown.sregs.into(), shown.events.into())
        } else {
            self.registers()?
        };
        self.state_with(registers, self.privileged.clone()).map(|state| CpuState::Kvm(Box::new(state)))
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), CpuError> {
        match state {
            CpuState::Kvm(state) => self.set_state(state),
            CpuState::Scripted(_) => Err(CpuError::State("it is of a scripted processor, not of KVM".into())),
        }
    }

    fn track_writes(&mut self) -> Result<(), CpuError> {
        set_memory(&self.vm, &self.memory, KVM_MEM_LOG_DIRTY_PAGES)
    }

    fn take_written(&mut self, pages: &mut PageSet) -> Result<(), CpuError> {
        for (slot, part) in (0..).zip(self.memory.parts()) {
            let log = self.vm.get_dirty_log(slot, part.size as usize);
            pages.unite_words(part.first_page, &log.map_err(call("KVM_GET_DIRTY_LOG"))?);
        }
        Ok(())
    }
}

/// Makes `memory` the VM's RAM, a slot for each part, or changes its flags.
fn set_memory(vm: &VmFd, memory: &Memory, flags: u32) -> Result<(), CpuError> {
    for (slot, part) in (0..).zip(memory.parts()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: part.address,
            memory_size: part.size,
            userspace_addr: part.host,
        };
        // SAFETY: the range is mapped by `memory`, of which `KvmCpu` keeps a clone that is dropped after the VM.
        unsafe { vm.set_user_memory_region(region) }.map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

impl Drop for KvmCpu {
    fn drop(&mut self) {
        self.kicker.disconnect();
    }
}

/// Opens `/dev/kvm` and checks that it offers what the machine needs.
///
/// # Errors
/// Naming what is missing.
pub fn open() -> Result<Kvm, CpuError> {
    let kvm = Kvm::new().map_err(|source| CpuError::Open { source })?;
    let missing: Vec<_> =
        NEEDED.iter().filter(|cap| !kvm.check_extension(**cap)).map(|cap| format!("{cap:?}")).collect();
    if missing.is_empty() {
        return Ok(kvm);
    }
    Err(CpuError::Unfit(format!("this kernel's KVM lacks {}", missing.join(", "))))
}

/// One KVM_RUN. A signal or `immediate_exit` ends it with [`Reason::Kicked`]; the last exit's instruction is then complete
/// (KVM API, section 5: pending operations are finished before `immediate_exit` is looked at).
fn run(vcpu: &mut VcpuFd, page: NonNull<kvm_run>) -> Result<Exit<'_>, CpuError> {
    let reason = match vcpu.run() {
        Ok(exit) => serve(exit, page)?,
        Err(error) if error.errno() == libc::EINTR => Reason::Kicked,
        Err(source) => return Err(CpuError::Kvm { call: "KVM_RUN", source }),
    };
    Ok(Exit { rip: rip(page), reason })
}

/// Translates an exit of KVM; this is the list of exits that count as steps.
fn serve(exit: VcpuExit<'_>, run: NonNull<kvm_run>) -> Result<Reason<'_>, CpuError> {
    match exit {
        VcpuExit::IoOut(port, data) => Ok(Reason::PortWrite { port, width: io_width(run), data }),
        VcpuExit::IoIn(port, data) => Ok(Reason::PortRead { port, width: io_width(run), data }),
        VcpuExit::MmioWrite(address, data) => Ok(Reason::MmioWrite { address, data }),
        VcpuExit::MmioRead(address, data) => Ok(Reason::MmioRead { address, data }),
        other => Err(CpuError::UnknownExit { rip: rip(run), exit: format!("{other:?}") }),
    }
}

/// Every exit shows the instruction pointer, without a call of its own.
const SHOWN_AT_EXITS: u64 = SyncReg::Register as u64;

/// Says which registers the next exits are to show in the shared page.
fn show(run: NonNull<kvm_run>, registers: u64) {
    // SAFETY: the mapping lives as long as the vCPU of the caller, which does not run; nobody else writes the field.
    unsafe { (&raw mut (*run.as_ptr()).kvm_valid_regs).write(registers) };
}

/// Bytes per item of a port exit; the slice that kvm-ioctls gives holds all items.
fn io_width(run: NonNull<kvm_run>) -> u8 {
    // SAFETY: the mapping lives as long as the vCPU that the caller has just run; the field is plain bytes, valid for any
    // content, and its union is in use by a port exit.
    unsafe { (&raw const (*run.as_ptr()).__bindgen_anon_1.io.size).read() }
}

fn rip(run: NonNull<kvm_run>) -> u64 {
    // SAFETY: the mapping lives as long as the vCPU; KVM has written the field, because it was asked to at every exit.
    unsafe { (&raw const (*run.as_ptr()).s.regs.regs.rip).read() }
}

/// Names the call in an error.
fn call(name: &'static str) -> impl Fn(kvm_ioctls::Error) -> CpuError {
    move |source| CpuError::Kvm { call: name, source }
}
