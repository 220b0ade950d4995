//! Guests that are none.

use echovisor_event::limits::MEMORY_MIN;
use proptest::prelude::*;

use super::{
    super::{BootError, ElfError, Image, Symbols, layout::IMAGE_BASE, load},
    elf_file::{MACHINE, SEGMENTS, Segment, TYPE, code, file},
};
use crate::{cpu::kvm::KvmState, memory::Memory};

/// `jmp` to itself.
const LOOP: [u8; 2] = [0xeb, 0xfe];

fn refused(bytes: &[u8]) -> BootError {
    load(bytes, "", &Memory::new(MEMORY_MIN).unwrap(), &mut blank()).expect_err("this is no guest")
}

fn blank() -> KvmState {
    KvmState {
        regs: Default::default(),
        sregs: Default::default(),
        fpu: Default::default(),
        debug: Default::default(),
        xcr0: 1,
        msrs: Vec::new(),
        mp_state: 0,
        events: Default::default(),
    }
}

fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = code(&LOOP);
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn a_guest_is_loaded_where_it_says() {
    let data = Segment { address: IMAGE_BASE + 0x1800, bytes: vec![7; 0x900], executable: false };
    let text = Segment { address: IMAGE_BASE, bytes: LOOP.to_vec(), executable: true };
    let bytes = file(&[text, data], IMAGE_BASE, &[]);
    let memory = Memory::new(MEMORY_MIN).unwrap();
    let image = Image::parse(&bytes).unwrap();
    assert_eq!((image.entry, image.load(&memory).unwrap()), (IMAGE_BASE, IMAGE_BASE + 0x3000));
    let mut there = [0; 0x902];
    memory.get(IMAGE_BASE + 0x17ff, &mut there);
    assert_eq!((there[0], &there[1..0x901], there[0x901]), (0, &[7; 0x900][..], 0));
    memory.get(IMAGE_BASE, &mut there[..3]);
    assert_eq!(there[..3], [0xeb, 0xfe, 0]);
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let whole = file(
        &[Segment { address: IMAGE_BASE, bytes: LOOP.to_vec(), executable: true }],
        IMAGE_BASE,
        &[IMAGE_BASE],
    );
    load(&whole, "", &Memory::new(MEMORY_MIN).unwrap(), &mut blank()).unwrap();
    for length in 0..whole.len() {
        assert!(matches!(refused(&whole[..length]), BootError::Elf(ElfError::Parse(_))), "{length} bytes");
    }
}

#[test]
fn other_kinds_of_files_are_named() {
    for (bytes, what) in [
        (with(MACHINE, &[183, 0]), "machine"),
        (with(TYPE, &[3, 0]), "dynamic"),
        (with(SEGMENTS, &[3, 0, 0, 0]), "dynamically linked"),
        (with(SEGMENTS, &[2, 0, 0, 0]), "dynamically linked"),
        (b"#!/bin/sh\n".repeat(20), "not a readable ELF"),
    ] {
        let error = refused(&bytes).to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_32_bit_file_is_named() {
    let mut file = vec![0; 52];
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1, 1, 1]);
    file[20] = 1; // version
    assert!(refused(&file).to_string().contains("32-bit"));
}

#[test]
fn segments_lie_in_ram_above_the_tables() {
    for address in [0, 0x1000, IMAGE_BASE - 1, MEMORY_MIN - 1, MEMORY_MIN, u64::MAX, u64::MAX - 1] {
        let segment = Segment { address, bytes: LOOP.to_vec(), executable: true };
        let error = refused(&file(&[segment], address, &[]));
        // At the very end of the address space there is not even an entry point.
        assert!(
            matches!(error, BootError::Elf(ElfError::Place { .. } | ElfError::Entry(_))),
            "{address:#x}: {error}"
        );
    }
    // A size in memory beyond all bounds, behind few bytes in the file.
    let error = refused(&with(SEGMENTS + 40, &u64::MAX.to_le_bytes()));
    assert!(matches!(error, BootError::Elf(ElfError::Place { .. })), "{error}");
}

#[test]
fn execution_starts_in_code() {
    let data = Segment { address: IMAGE_BASE, bytes: LOOP.to_vec(), executable: false };
    for bytes in [file(&[data], IMAGE_BASE, &[]), with(24, &(IMAGE_BASE + 2).to_le_bytes())] {
        assert!(matches!(refused(&bytes), BootError::Elf(ElfError::Entry(_))));
    }
}

#[test]
fn arguments_have_their_room() {
    let memory = Memory::new(MEMORY_MIN).unwrap();
    load(&code(&LOOP), &"x".repeat(2048), &memory, &mut blank()).unwrap();
    let error = load(&code(&LOOP), &"x".repeat(2049), &memory, &mut blank()).unwrap_err();
    assert!(matches!(error, BootError::Arguments(2049)));
}

#[test]
fn code_at_the_end_of_the_address_space_is_no_overflow() {
    let text = Segment { address: IMAGE_BASE, bytes: LOOP.to_vec(), executable: true };
    let mut bytes = file(&[text], IMAGE_BASE, &[IMAGE_BASE]);
    // `sh_addr` of the second of four section headers, which end the file.
    let at = bytes.len() - 3 * 64 + 16;
    assert_eq!(bytes[at..at + 8], IMAGE_BASE.to_le_bytes());
    bytes[at..at + 8].fill(0xff);
    assert_eq!(Image::parse(&bytes).unwrap().code().unwrap().len(), 1);
}

proptest! {
    /// Any answer will do, but an answer it must be.
    #[test]
    fn no_file_brings_the_loader_down(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        huge in prop::option::of(any::<prop::sample::Index>()),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = Segment { address: IMAGE_BASE, bytes: vec![0x90; 40], executable: true };
        let mut bytes = file(&[text], IMAGE_BASE, &[IMAGE_BASE, IMAGE_BASE + 8]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Sums of addresses and sizes overflow only with numbers that chance alone does not find.
        if let Some(at) = huge.map(|at| at.index(bytes.len() - 8)) {
            bytes[at..at + 8].fill(0xff);
        }
        let kept = bytes.len() - cut.index(bytes.len() / 4);
        if let Ok(image) = Image::parse(&bytes[..kept]) {
            let _ = image.code();
            let _ = image.load(&Memory::new(MEMORY_MIN).unwrap());
        }
        let _ = Symbols::of(&bytes[..kept]);
    }
}
