//! Stopping.

use crate::port;

/// Exit code of a guest that panicked.
pub const PANICKED: u32 = 101;

/// Powers the machine off with an exit code.
pub fn off(code: u32) -> ! {
    loop {
        // SAFETY: the machine reads nothing but the code, and does not return.
        unsafe { port::write_u32(abi::POWER_PORT, code) }
    }
}
