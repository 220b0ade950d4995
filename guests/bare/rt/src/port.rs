//! Port I/O. Every access is an exit to the machine.
//!
//! None of the assembly claims `nomem`: at a port the machine reads and writes the guest's memory.

use core::arch::asm;

/// Reads a byte.
///
/// # Safety
///
/// The device behind `port` may change memory; the caller knows which and holds no reference to it.
pub unsafe fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: the machine opens all ports to ring 3; the effects are the caller's promise.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// Writes a byte.
///
/// # Safety
///
/// As for [`read_u8`].
pub unsafe fn write_u8(port: u16, value: u8) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Reads four bytes.
///
/// # Safety
///
/// As for [`read_u8`].
pub unsafe fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `read_u8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) };
    value
}

/// Writes four bytes.
///
/// # Safety
///
/// As for [`read_u8`].
pub unsafe fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}
