//! memcpy and its kin, which the compiler calls and a program without a C library must bring along.
//!
//! They have a crate of their own because of `no_builtins`: without it LLVM would recognise the loops below as
//! memcpy and turn them into calls to themselves.
#![no_std]
#![no_builtins]

use core::arch::asm;
use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_set1_epi8, _mm_storeu_si128};

/// Bytes of an SSE register, the unit of the loops below.
const LANE: usize = size_of::<__m128i>();
/// From here on `rep movsb` and `rep stosb` win over a loop of SSE moves; below it their start-up cost dominates.
const REP_FROM: usize = 1024;

/// C's `memcpy`.
///
/// # Safety
///
/// As in C: `from` is readable and `to` writable for `length` bytes, and they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise covers every access below, which stay within `length` bytes of both pointers.
    unsafe {
        if length < LANE {
            copy_small(to, from, length);
        } else if length < REP_FROM {
            copy_lanes_up(to, from, length);
        } else {
            asm!(
                "rep movsb",
                inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags)
            );
        }
    }
    to
}

/// C's `memmove`.
///
/// # Safety
///
/// As in C: `from` is readable and `to` writable for `length` bytes; they may overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction is chosen so that no byte is overwritten before it was read.
    unsafe {
        if (to as usize).wrapping_sub(from as usize) >= length {
            move_up(to, from, length);
        } else {
            move_down(to, from, length);
        }
    }
    to
}

/// C's `memset`.
///
/// # Safety
///
/// As in C: `to` is writable for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    let byte = byte as u8;
    // SAFETY: the caller's promise; the last lane ends exactly at `to + length`.
    unsafe {
        if length < LANE {
            for offset in 0..length {
                to.add(offset).write(byte);
            }
        } else if length < REP_FROM {
            let lane = _mm_set1_epi8(byte as i8);
            for offset in (0..length - LANE).step_by(LANE) {
                _mm_storeu_si128(to.add(offset).cast(), lane);
            }
            _mm_storeu_si128(to.add(length - LANE).cast(), lane);
        } else {
            asm!(
                "rep stosb",
                inout("rcx") length => _, inout("rdi") to => _, in("al") byte,
                options(nostack, preserves_flags)
            );
        }
    }
    to
}

/// C's `memcmp`.
///
/// # Safety
///
/// As in C: both are readable for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise; each word ends at or before `length`.
    unsafe {
        let mut offset = 0;
        while offset + 8 <= length {
            let a = left.add(offset).cast::<u64>().read_unaligned();
            let b = right.add(offset).cast::<u64>().read_unaligned();
            if a != b {
                // Big endian puts the first differing byte in front, where it decides.
                return if a.swap_bytes() < b.swap_bytes() { -1 } else { 1 };
            }
            offset += 8;
        }
        while offset < length {
            let (a, b) = (left.add(offset).read(), right.add(offset).read());
            if a != b {
                return i32::from(a) - i32::from(b);
            }
            offset += 1;
        }
    }
    0
}

/// `memcmp` where only equality matters.
///
/// # Safety
///
/// As for [`memcmp`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { memcmp(left, right, length) }
}

/// Copies less than a lane, by two overlapping words where that covers it.
///
/// # Safety
///
/// As for [`memmove`]: both words are read before one is written.
#[inline(always)]
unsafe fn copy_small(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: each access lies within `length` bytes.
    unsafe {
        match length {
            8.. => copy_ends::<u64>(to, from, length),
            4..8 => copy_ends::<u32>(to, from, length),
            2..4 => copy_ends::<u16>(to, from, length),
            1 => to.write(from.read()),
            0 => {}
        }
    }
}

/// Copies the first and the last `T` of a block that these two cover.
///
/// # Safety
///
/// `length` is between one and two sizes of `T`; otherwise as for [`memmove`].
#[inline(always)]
unsafe fn copy_ends<T>(to: *mut u8, from: *const u8, length: usize) {
    let end = length - size_of::<T>();
    // SAFETY: `end` is the start of the last `T` inside the block.
    unsafe {
        let head = from.cast::<T>().read_unaligned();
        let tail = from.add(end).cast::<T>().read_unaligned();
        to.cast::<T>().write_unaligned(head);
        to.add(end).cast::<T>().write_unaligned(tail);
    }
}

/// Copies by lanes from the start; the last lane, read before anything is written, overlaps the one before it.
///
/// # Safety
///
/// `length` is at least a lane, and `to` is not inside `from .. from + length`.
#[inline(always)]
unsafe fn copy_lanes_up(to: *mut u8, from: *const u8, length: usize) {
    let end = length - LANE;
    // SAFETY: the last lane begins at `end`, the others before it.
    unsafe {
        let tail = _mm_loadu_si128(from.add(end).cast());
        for offset in (0..end).step_by(LANE) {
            _mm_storeu_si128(to.add(offset).cast(), _mm_loadu_si128(from.add(offset).cast()));
        }
        _mm_storeu_si128(to.add(end).cast(), tail);
    }
}

/// Moves towards lower addresses, or between blocks that do not overlap.
///
/// # Safety
///
/// As for [`memmove`], and `to` is not inside `from .. from + length`.
unsafe fn move_up(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: bytes are written in ascending order, below or outside of what is still to be read.
    unsafe {
        if length < LANE {
            copy_small(to, from, length);
        } else if length < REP_FROM {
            copy_lanes_up(to, from, length);
        } else {
            asm!(
                "rep movsb",
                inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Moves towards higher addresses.
///
/// # Safety
///
/// As for [`memmove`].
unsafe fn move_down(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: lanes are written in descending order, above what is still to be read; the first lane is read first.
    unsafe {
        if length < LANE {
            copy_small(to, from, length);
            return;
        }
        let head = _mm_loadu_si128(from.cast());
        let mut offset = length;
        while offset > LANE {
            offset -= LANE;
            _mm_storeu_si128(to.add(offset).cast(), _mm_loadu_si128(from.add(offset).cast()));
        }
        _mm_storeu_si128(to.cast(), head);
    }
}
