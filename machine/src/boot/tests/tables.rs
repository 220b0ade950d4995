//! The tables as the processor reads them, against docs/guest-abi.md.

use echovisor_event::limits::{MEMORY_MAX, MEMORY_MIN, MEMORY_STEP};

use super::super::{
    layout::{
        CONTROL, CRASH_PORT, GDT, HIGH_MEMORY, IDT, IMAGE_BASE, LOW_MEMORY_END, PCI_WINDOW_BASE,
        PCI_WINDOW_SIZE, PML4, RING0_STACK_TOP, STUBS, SUPERVISOR_END, TSS,
    },
    tables::{GDT_SIZE, IDT_SIZE, KERNEL_CODE, TASK, TSS_SIZE, USER_CODE, USER_DATA, write},
};
use crate::memory::Memory;

fn tables() -> Memory {
    let memory = Memory::new(MEMORY_MIN).unwrap();
    write(&memory).unwrap();
    memory
}

fn word(memory: &Memory, address: u64) -> u64 {
    let mut bytes = [0; 8];
    memory.get(address, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// What the processor finds for an address: where it leads, and who may do what.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    to: u64,
    user: bool,
    writable: bool,
    executable: bool,
}

/// Walks the tables (Intel SDM vol. 3A, 4.5).
fn walk(memory: &Memory, address: u64) -> Option<Page> {
    let (mut table, mut user, mut writable, mut executable) = (PML4, true, true, true);
    for shift in [39, 30, 21, 12] {
        let entry = word(memory, table + (address >> shift & 0x1ff) * 8);
        if entry & 1 == 0 {
            return None;
        }
        assert_eq!(entry & 0x20, 0x20, "the processor would set the accessed bit for {address:#x}");
        user &= entry & 4 != 0;
        writable &= entry & 2 != 0;
        executable &= entry >> 63 == 0;
        let frame = entry & 0xf_ffff_ffff_f000;
        if shift == 12 || entry & 0x80 != 0 {
            assert_eq!(entry & 0x40, 0x40, "the processor would set the dirty bit for {address:#x}");
            let inside = address & ((1 << shift) - 1);
            return Some(Page { to: frame & !((1 << shift) - 1) | inside, user, writable, executable });
        }
        table = frame;
    }
    unreachable!("the last level is a leaf")
}

fn user(address: u64, executable: bool) -> Option<Page> {
    Some(Page { to: address, user: true, writable: true, executable })
}

#[test]
fn pages_are_as_documented() {
    let memory = tables();
    for hole in
        [0, 0xfff, CONTROL + 0x1000, IMAGE_BASE - 1, MEMORY_MIN, PCI_WINDOW_BASE - 1, 1 << 32, 1 << 47]
    {
        assert_eq!(walk(&memory, hole), None, "{hole:#x}");
    }
    for address in (0x1000..SUPERVISOR_END).step_by(0x1000) {
        let page = walk(&memory, address).unwrap();
        assert_eq!((page.to, page.user), (address, false), "{address:#x}");
    }
    assert_eq!(walk(&memory, CONTROL), user(CONTROL, false));
    for address in [IMAGE_BASE, IMAGE_BASE + 0x1234, MEMORY_MIN - 1] {
        assert_eq!(walk(&memory, address), user(address, true));
    }
    for address in [PCI_WINDOW_BASE, PCI_WINDOW_BASE + PCI_WINDOW_SIZE - 1] {
        assert_eq!(walk(&memory, address), user(address, false));
    }
}

#[test]
fn what_lies_above_4_gib_is_mapped_too() {
    for size in [LOW_MEMORY_END + MEMORY_STEP, (5 << 30) + MEMORY_STEP, MEMORY_MAX] {
        let memory = Memory::new(size).unwrap();
        write(&memory).unwrap();
        let end = HIGH_MEMORY + size - LOW_MEMORY_END;
        for hole in [LOW_MEMORY_END, PCI_WINDOW_BASE - 1, HIGH_MEMORY - 1, end] {
            assert_eq!(walk(&memory, hole), None, "{hole:#x} of {size:#x}");
        }
        for address in [LOW_MEMORY_END - 1, HIGH_MEMORY, HIGH_MEMORY + 0x1234, end - 1] {
            assert_eq!(walk(&memory, address), user(address, true), "{address:#x} of {size:#x}");
        }
    }
}

/// A descriptor's selector, type with present bit and privilege, and flags (Intel SDM vol. 3A, 3.4.5).
#[test]
fn segments_are_ring_0_ring_3_and_a_task() {
    let memory = tables();
    for (selector, access, flags) in [
        (KERNEL_CODE, 0x9b, 0xa),
        (0x10, 0x93, 0xc),
        (USER_DATA, 0xf3, 0xc),
        (USER_CODE, 0xfb, 0xa),
        (TASK, 0x8b, 0),
    ] {
        let descriptor = word(&memory, GDT + u64::from(selector & !7));
        assert_eq!(
            (descriptor >> 40 & 0xff, descriptor >> 52 & 0xf),
            (access, flags),
            "selector {selector:#x}"
        );
        assert!(u64::from(selector | 7) < u64::from(GDT_SIZE));
    }
    assert_eq!(word(&memory, GDT), 0);
    let task = word(&memory, GDT + u64::from(TASK));
    let base = task >> 16 & 0xff_ffff | (task >> 56) << 24 | word(&memory, GDT + u64::from(TASK) + 8) << 32;
    assert_eq!((base, task & 0xffff), (TSS, u64::from(TSS_SIZE) - 1));
}

#[test]
fn the_task_opens_every_port_and_ends_its_bitmap() {
    let memory = tables();
    assert_eq!(word(&memory, TSS + 4), RING0_STACK_TOP);
    let bitmap = word(&memory, TSS + 0x60) >> 48;
    assert_eq!(bitmap + 0x2000 + 1, u64::from(TSS_SIZE));
    let mut ports = [1; 0x2001];
    memory.get(TSS + bitmap, &mut ports);
    assert!(ports[..0x2000].iter().all(|byte| *byte == 0));
    assert_eq!(ports[0x2000], 0xff);
}

#[test]
fn every_exception_leads_to_the_machine() {
    let memory = tables();
    assert_eq!(IDT_SIZE, 256 * 16);
    for vector in 0..256 {
        let gate = word(&memory, IDT + 16 * vector);
        let stub = gate & 0xffff | gate >> 32 & 0xffff_0000 | word(&memory, IDT + 16 * vector + 8) << 32;
        assert_eq!(stub, STUBS + 16 * vector);
        assert_eq!(gate >> 16 & 0xffff, u64::from(KERNEL_CODE));
        let privilege = if vector == 3 || vector == 4 { 0xee } else { 0x8e };
        assert_eq!(gate >> 40 & 0xff, privilege, "vector {vector}");

        // push 0 where the processor pushes no error code, push the vector, jump.
        let mut code = [0; 16];
        memory.get(stub, &mut code);
        let with_error_code = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30].contains(&vector);
        let rest = if with_error_code { &code[..] } else { code.strip_prefix(&[0x6a, 0]).unwrap() };
        assert_eq!(rest[0], 0x68);
        assert_eq!(rest[1..5], (vector as u32).to_le_bytes());
        assert_eq!(rest[5], 0xe9);
        let offset = i32::from_le_bytes(rest[6..10].try_into().unwrap());
        let next = stub + (16 - rest.len() as u64) + 10;
        let common = next.wrapping_add_signed(offset.into());
        let mut code = [0; 10];
        memory.get(common, &mut code);
        // push rax; push rdx; mov edx, port; out dx, eax; jmp to the out
        assert_eq!(code[..3], [0x50, 0x52, 0xba]);
        assert_eq!(code[3..7], u32::from(CRASH_PORT).to_le_bytes());
        assert_eq!(code[7..], [0xef, 0xeb, 0xfd]);
    }
}
