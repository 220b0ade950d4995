//! Small ELF programs, right and wrong, as guests.

/// Where the program is loaded, and where it begins.
const BASE: u64 = 0x20_0000;

/// Bytes of the two headers, behind which the code begins.
const HEADERS: u64 = 64 + 56;

/// x86-64.
pub const X86_64: u16 = 62;

/// RISC-V, which no host of ours is.
pub const RISC_V: u16 = 243;

/// A static program for `machine` that consists of `code`.
#[must_use]
pub fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::new();
    // 64 bits, little endian, version 1; an executable.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0");
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    // Entry point, program headers, no section headers.
    [BASE + HEADERS, 64, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    // Sizes and counts: header, program header, one of them, section header, none, none.
    [64u16, 56, 1, 64, 0, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
    // One segment to load: readable and executable, the whole file.
    [1u32, 5].iter().for_each(|word| file.extend(word.to_le_bytes()));
    [0, BASE, BASE, size, size, 0x1000].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(code);
    file
}
