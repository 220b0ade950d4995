//! The tables that the processor reads: pages, segments, interrupts, and the exception stubs.
//!
//! Bits that the processor sets by itself (accessed, dirty, busy) are set from the start, so that they never change.

use vm_memory::{Bytes, GuestAddress};

use super::layout::{
    CONTROL, CRASH_PORT, GDT, HIGH_MEMORY, IDT, PCI_WINDOW_BASE, PD, PD_HIGH, PDPT, PML4, PT,
    RING0_STACK_TOP, STUBS, SUPERVISOR_END, TSS,
};
use crate::memory::Memory;

/// Ring-0 code, ring-0 data, ring-3 data, ring-3 code, and the task state segment.
pub(super) const KERNEL_CODE: u16 = 0x08;
pub(super) const USER_DATA: u16 = 0x18 | 3;
pub(super) const USER_CODE: u16 = 0x20 | 3;
pub(super) const TASK: u16 = 0x28;

/// Bytes of the GDT.
pub(super) const GDT_SIZE: u16 = 0x38;
/// Bytes of the IDT.
pub(super) const IDT_SIZE: u16 = 0x1000;
/// Bytes of the task state segment (Intel SDM vol. 3A, 8.7), a bit for each port, and the byte of ones that ends them.
pub(super) const TSS_SIZE: u32 = TSS_BASE_SIZE + PORT_BITMAP_SIZE + 1;
const TSS_BASE_SIZE: u32 = 0x68;
const PORT_BITMAP_SIZE: u32 = 0x1_0000 / 8;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

const PAGE: u64 = 0x1000;
const LARGE_PAGE: u64 = 0x20_0000;
const GIB: u64 = 1 << 30;

/// Writes all tables.
pub(super) fn write(memory: &Memory) -> Result<(), vm_memory::GuestMemoryError> {
    page_tables(memory)?;
    segments(memory)?;
    interrupts(memory)
}

/// An identity map of RAM and the PCI window. The first 2 MiB have small pages, because they hold what ring 3 must not
/// reach.
fn page_tables(memory: &Memory) -> Result<(), vm_memory::GuestMemoryError> {
    let branch = PRESENT | WRITABLE | USER | ACCESSED;
    let leaf = PRESENT | WRITABLE | ACCESSED | DIRTY;
    let put =
        |table: u64, index: u64, entry: u64| memory.mmap().write_obj(entry, GuestAddress(table + index * 8));

    put(PML4, 0, PDPT | branch)?;
    for gib in 0..4 {
        put(PDPT, gib, (PD + gib * PAGE) | branch)?;
    }
    put(PD, 0, PT | branch)?;
    for page in (PAGE..SUPERVISOR_END).step_by(PAGE as usize) {
        put(PT, page / PAGE, page | leaf)?;
    }
    put(PT, CONTROL / PAGE, CONTROL | leaf | USER | NO_EXECUTE)?;
    // The page directories of each part lie side by side, so one index runs through them.
    for page in (LARGE_PAGE..memory.low_size()).step_by(LARGE_PAGE as usize) {
        put(PD, page / LARGE_PAGE, page | leaf | USER | LARGE)?;
    }
    for gib in 0..memory.high_size().div_ceil(GIB) {
        put(PDPT, HIGH_MEMORY / GIB + gib, (PD_HIGH + gib * PAGE) | branch)?;
    }
    for page in (0..memory.high_size()).step_by(LARGE_PAGE as usize) {
        put(PD_HIGH, page / LARGE_PAGE, (HIGH_MEMORY + page) | leaf | USER | LARGE)?;
    }
    put(PD, PCI_WINDOW_BASE / LARGE_PAGE, PCI_WINDOW_BASE | leaf | USER | LARGE | NO_EXECUTE)
}

fn segments(memory: &Memory) -> Result<(), vm_memory::GuestMemoryError> {
    let limit = u64::from(TSS_SIZE - 1);
    // A busy 64-bit TSS (type 11), present.
    let task = limit | (TSS & 0xFF_FFFF) << 16 | 0x8B << 40 | (TSS >> 24 & 0xFF) << 56;
    let gdt: [u64; GDT_SIZE as usize / 8] = [
        0,
        0x00AF_9B00_0000_FFFF,
        0x00CF_9300_0000_FFFF,
        0x00CF_F300_0000_FFFF,
        0x00AF_FB00_0000_FFFF,
        task,
        TSS >> 32,
    ];
    for (index, descriptor) in gdt.into_iter().enumerate() {
        memory.mmap().write_obj(descriptor, GuestAddress(GDT + index as u64 * 8))?;
    }
    // RSP0; and where the port bitmap begins. RAM is zero, and a zero bit opens its port to ring 3.
    memory.mmap().write_obj(RING0_STACK_TOP, GuestAddress(TSS + 4))?;
    memory.mmap().write_obj(TSS_BASE_SIZE as u16, GuestAddress(TSS + 0x66))?;
    memory.mmap().write_obj(0xFF_u8, GuestAddress(TSS + u64::from(TSS_SIZE - 1)))
}

/// Bytes from one stub to the next.
const STUB_SIZE: u64 = 16;

/// A gate for each vector, and a stub for each gate. A stub pushes the error code, if the processor did not, and its vector;
/// then [`common`] leaves to the machine, which reads the rest from the stack ([`super::crash`]).
fn interrupts(memory: &Memory) -> Result<(), vm_memory::GuestMemoryError> {
    let common_address = STUBS + 256 * STUB_SIZE;
    for vector in 0..=255_u8 {
        let stub = STUBS + u64::from(vector) * STUB_SIZE;
        let mut code = Vec::with_capacity(STUB_SIZE as usize);
        if !has_error_code(vector) {
            code.extend([0x6A, 0]); // push 0
        }
        code.push(0x68); // push imm32
        code.extend(u32::from(vector).to_le_bytes());
        code.push(0xE9); // jmp rel32
        let next = stub + code.len() as u64 + 4;
        code.extend(((common_address - next) as u32).to_le_bytes());
        memory.mmap().write_slice(&code, GuestAddress(stub))?;

        // A 64-bit interrupt gate (Intel SDM vol. 3A, 6.14.1). INT3 and INTO may come from ring 3.
        let privilege = if matches!(vector, 3 | 4) { 3 } else { 0 };
        let gate_type = 0x8E | privilege << 5;
        let low =
            stub & 0xFFFF | u64::from(KERNEL_CODE) << 16 | gate_type << 40 | (stub >> 16 & 0xFFFF) << 48;
        let gate = GuestAddress(IDT + u64::from(vector) * 16);
        memory.mmap().write_obj([low, stub >> 32], gate)?;
    }
    memory.mmap().write_slice(&common(), GuestAddress(common_address))
}

/// Saves the two registers it needs, then says that the guest has crashed.
fn common() -> Vec<u8> {
    let mut code = vec![0x50, 0x52, 0xBA]; // push rax; push rdx; mov edx, imm32
    code.extend(u32::from(CRASH_PORT).to_le_bytes());
    code.extend([0xEF, 0xEB, 0xFD]); // out dx, eax; jmp to the out
    code
}

/// Whether the processor pushes an error code for this exception (Intel SDM vol. 3A, table 6-1).
fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}
