//! The console: an 8250 that the guest polls.
//!
//! The registers are those of [`vm_superio::Serial`]. Its interrupt line is not wired to anything; whether it is active
//! is a function of the state (the identification register says "none" or not), so nothing about it has to be kept.

pub(super) mod state;

use std::convert::Infallible;

use echovisor_event::Effect;
use vm_superio::{
    Trigger,
    serial::{NoEvents, Serial},
};

use super::error::DeliveryError;

/// The console.
pub(super) struct Console {
    /// Its writer is a buffer that is empty between calls and never holds more than one byte.
    serial: Serial<Unwired, NoEvents, Vec<u8>>,
}

/// An interrupt line that leads nowhere.
struct Unwired;

impl Trigger for Unwired {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Console {
    pub(super) fn new() -> Console {
        Console { serial: Serial::new(Unwired, Vec::new()) }
    }

    /// Reads the register at `offset`, 0 to 7.
    pub(super) fn read(&mut self, offset: u16) -> u8 {
        self.serial.read(offset as u8)
    }

    /// Writes the register at `offset`, 0 to 7.
    pub(super) fn write(&mut self, offset: u16, value: u8, effects: &mut dyn FnMut(Effect<'_>)) {
        // Neither the trigger nor a write to memory can fail.
        let _ = self.serial.write(offset as u8, value);
        let out = self.serial.writer_mut();
        if !out.is_empty() {
            effects(Effect::Console(out));
            out.clear();
        }
    }

    /// How many bytes the FIFO has room for.
    pub(super) fn space(&self) -> usize {
        self.serial.fifo_capacity()
    }

    /// Takes received bytes. In loopback mode the line is disconnected, and they are lost as on hardware.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), DeliveryError> {
        let space = self.space();
        if bytes.len() > space {
            return Err(DeliveryError::ConsoleFull { length: bytes.len(), space });
        }
        // Room has been checked, and the trigger cannot fail.
        let _ = self.serial.enqueue_raw_bytes(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u16 = 0;
    const MODEM_CONTROL: u16 = 4;
    const LINE_STATUS: u16 = 5;
    const SCRATCH: u16 = 7;
    const DATA_READY: u8 = 1;
    const LOOPBACK: u8 = 0x10;

    fn silent(_: Effect<'_>) {
        panic!("no effect expected");
    }

    #[test]
    fn a_written_byte_is_one_effect() {
        let mut console = Console::new();
        let mut said = Vec::new();
        for byte in *b"ok\n" {
            console.write(DATA, byte, &mut |effect| match effect {
                Effect::Console(bytes) => said.push(bytes.to_vec()),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(said, [b"o", b"k", b"\n"]);
    }

    #[test]
    fn received_bytes_are_polled_in_order() {
        let mut console = Console::new();
        console.receive(b"abc").unwrap();
        for byte in *b"abc" {
            assert_eq!(console.read(LINE_STATUS) & DATA_READY, DATA_READY);
            assert_eq!(console.read(DATA), byte);
        }
        assert_eq!(console.read(LINE_STATUS) & DATA_READY, 0);
        assert_eq!(console.read(DATA), 0);
    }

    #[test]
    fn input_is_bounded() {
        let mut console = Console::new();
        let space = console.space();
        console.receive(&vec![b'x'; space - 1]).unwrap();
        assert_eq!(console.receive(b"yz"), Err(DeliveryError::ConsoleFull { length: 2, space: 1 }));
        console.receive(b"y").unwrap();
        assert_eq!(console.space(), 0);
        console.receive(b"").unwrap();
    }

    #[test]
    fn loopback_disconnects_the_line() {
        let mut console = Console::new();
        console.write(MODEM_CONTROL, LOOPBACK, &mut silent);
        console.receive(b"lost").unwrap();
        assert_eq!(console.read(LINE_STATUS) & DATA_READY, 0);
        console.write(DATA, b'!', &mut silent);
        assert_eq!(console.read(DATA), b'!');
    }

    #[test]
    fn a_restored_console_goes_on_like_the_saved_one() {
        let mut console = Console::new();
        console.receive(b"typed").unwrap();
        console.read(DATA);
        console.write(SCRATCH, 0x5a, &mut silent);
        let mut restored = Console::try_from(&console.save()).unwrap();
        for offset in 0..8 {
            assert_eq!(restored.read(offset), console.read(offset), "register {offset}");
        }
        assert_eq!(restored.save(), console.save());
    }
}
