//! The 8250 console, polled.

use crate::port;
use core::fmt;

const DATA: u16 = abi::CONSOLE_PORT;
const LINE_STATUS: u16 = abi::CONSOLE_PORT + 5;
const DATA_READY: u8 = 1 << 0;

/// Writes to the console.
///
/// Each byte is an exit, so print little. The transmitter is not asked whether it is ready: in a virtual machine it
/// always is, and the question would be another exit.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(write);
        Ok(())
    }
}

/// Writes one byte.
pub fn write(byte: u8) {
    // SAFETY: the console changes no memory of the guest.
    unsafe { port::write_u8(DATA, byte) }
}

/// Takes a byte of input, if one has come.
pub fn read() -> Option<u8> {
    // SAFETY: as in `write`.
    unsafe { (port::read_u8(LINE_STATUS) & DATA_READY != 0).then(|| port::read_u8(DATA)) }
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::Console, $($argument)*);
    }};
}
