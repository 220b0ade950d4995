//! Starting a bare guest: from an ELF file to a processor that stands before its first instruction.

mod crash;
mod elf;
pub mod layout;
mod scan;
mod symbols;
mod tables;

use vm_memory::{Bytes, GuestAddress};

pub use self::{crash::Crash, elf::ElfError, scan::Forbidden, symbols::Symbols};
use self::{
    elf::Image,
    layout::{ARGUMENTS_MAX, CONTROL, CONTROL_MAGIC, CONTROL_VERSION, GDT, IDT, PML4, TSS, control},
    tables::{GDT_SIZE, IDT_SIZE, TASK, TSS_SIZE, USER_CODE, USER_DATA},
};
use crate::{
    config::MachineConfig,
    cpu::{
        CpuError,
        kvm::{KvmCpu, KvmState, Segment, Table},
    },
    machine::Machine,
    memory::{Memory, MemoryError},
};

/// Why a guest cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file is no bare guest.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The file contains an instruction that could not be replayed.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The argument string is too long.
    #[error("the guest's arguments have {0} bytes; there is room for {ARGUMENTS_MAX}")]
    Arguments(usize),
    /// No memory for the guest.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No processor for the guest.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The tables do not fit into the guest's memory.
    #[error("writing the machine's tables: {0}")]
    Tables(#[from] vm_memory::GuestMemoryError),
}

/// Boots the bare guest `elf` on KVM: a machine that stands before the guest's first instruction.
///
/// # Errors
/// If the file is no bare guest, or the host gives no memory or no vCPU.
pub fn boot(config: &MachineConfig, elf: &[u8]) -> Result<Machine<KvmCpu>, BootError> {
    let memory = Memory::new(config.memory)?;
    let mut cpu = KvmCpu::new(&memory)?;
    let mut state = cpu.state()?;
    load(elf, &config.arguments, &memory, &mut state)?;
    cpu.set_state(&state)?;
    Ok(Machine::new(cpu, memory, &config.devices()))
}

/// Loads the guest `elf` with `arguments` into zeroed `memory` and turns the `state` of a fresh vCPU into the one with
/// which it starts, as `docs/guest-abi.md` says.
///
/// # Errors
/// If the file is no bare guest or does not fit.
pub fn load(elf: &[u8], arguments: &str, memory: &Memory, state: &mut KvmState) -> Result<(), BootError> {
    let image = Image::parse(elf)?;
    scan::scan(&image.code()?)?;
    if arguments.len() > ARGUMENTS_MAX {
        return Err(BootError::Arguments(arguments.len()));
    }
    let image_end = image.load(memory)?;
    tables::write(memory)?;

    let put = |offset: u64| GuestAddress(CONTROL + offset);
    memory.mmap().write_obj(CONTROL_MAGIC, put(control::MAGIC))?;
    memory.mmap().write_obj(CONTROL_VERSION, put(control::VERSION))?;
    memory.mmap().write_obj(arguments.len() as u32, put(control::ARGUMENTS_LENGTH))?;
    memory.mmap().write_obj(memory.size(), put(control::MEMORY_SIZE))?;
    memory.mmap().write_obj(image_end, put(control::IMAGE_END))?;
    memory.mmap().write_slice(arguments.as_bytes(), put(control::ARGUMENTS))?;

    enter_ring3(state, image.entry, memory.low_size());
    Ok(())
}

/// Sets the processor up as after a switch to 64-bit ring 3.
fn enter_ring3(state: &mut KvmState, entry: u64, stack_top: u64) {
    const PROTECTION: u64 = 1;
    const MONITOR_COPROCESSOR: u64 = 1 << 1;
    const EXTENSION_TYPE: u64 = 1 << 4;
    const NUMERIC_ERROR: u64 = 1 << 5;
    const WRITE_PROTECT: u64 = 1 << 16;
    const PAGING: u64 = 1 << 31;
    const TIME_STAMP_DISABLE: u64 = 1 << 2;
    const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const OSFXSR: u64 = 1 << 9;
    const OSXMMEXCPT: u64 = 1 << 10;
    const LONG_MODE_ENABLE: u64 = 1 << 8;
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    const NO_EXECUTE_ENABLE: u64 = 1 << 11;
    const APIC_ENABLE: u64 = 1 << 11;

    let regs = &mut state.regs;
    *regs = Default::default();
    regs.rip = entry;
    regs.rsp = stack_top - 8;
    regs.rdi = CONTROL;
    regs.rflags = 2;

    let data = Segment {
        limit: u32::MAX,
        selector: USER_DATA,
        type_: 3, // read, write, accessed
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let sregs = &mut state.sregs;
    sregs.cs = Segment { selector: USER_CODE, type_: 11, db: 0, l: 1, ..data };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = Segment {
        base: TSS,
        limit: TSS_SIZE - 1,
        selector: TASK,
        type_: 11, // a busy 64-bit TSS
        present: 1,
        ..Default::default()
    };
    sregs.ldt = Segment { unusable: 1, ..Default::default() };
    sregs.gdt = Table { base: GDT, limit: GDT_SIZE - 1 };
    sregs.idt = Table { base: IDT, limit: IDT_SIZE - 1 };
    sregs.cr0 = PROTECTION | MONITOR_COPROCESSOR | EXTENSION_TYPE | NUMERIC_ERROR | WRITE_PROTECT | PAGING;
    sregs.cr3 = PML4;
    sregs.cr4 = TIME_STAMP_DISABLE | PHYSICAL_ADDRESS_EXTENSION | OSFXSR | OSXMMEXCPT;
    sregs.efer = LONG_MODE_ENABLE | LONG_MODE_ACTIVE | NO_EXECUTE_ENABLE;

    // There is none, and KVM shows the bit in CPUID leaf 1 by this, whatever the table says.
    sregs.apic_base &= !APIC_ENABLE;

    // As after FNINIT, and the reset value of MXCSR: all exceptions masked.
    state.fpu = Default::default();
    state.fpu.fcw = 0x37F;
    state.fpu.mxcsr = 0x1F80;
    state.xcr0 = 1;
}

#[cfg(test)]
mod tests;
