//! The saved state of the console.

use rkyv::{Archive, Deserialize, Serialize};
use vm_superio::serial::{Error, NoEvents, Serial, SerialState};

use super::{super::error::DeviceStateError, Console, Unwired};

/// `interrupt_enable`: the four interrupts of a 16550.
const INTERRUPT_ENABLE_MASK: u8 = 0x0f;
/// `interrupt_identification`: none; or transmitter empty, data received, or both.
const INTERRUPT_IDENTIFICATIONS: [u8; 4] = [1, 2, 4, 6];
/// `line_status`: the transmitter is always empty and idle.
const TRANSMITTER_EMPTY: u8 = 0x60;
/// `line_status`: there is input.
const DATA_READY: u8 = 0x01;

/// The state of the console. The line status follows from `input`, and the modem status never changes.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ConsoleState {
    /// Low byte of the baud rate divisor.
    pub baud_divisor_low: u8,
    /// High byte of the baud rate divisor.
    pub baud_divisor_high: u8,
    /// Interrupt enable register.
    pub interrupt_enable: u8,
    /// Interrupt identification register.
    pub interrupt_identification: u8,
    /// Line control register.
    pub line_control: u8,
    /// Modem control register.
    pub modem_control: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Received bytes that the guest has not read.
    pub input: Vec<u8>,
}

impl Console {
    pub(in crate::devices) fn save(&self) -> ConsoleState {
        let serial = self.serial.state();
        ConsoleState {
            baud_divisor_low: serial.baud_divisor_low,
            baud_divisor_high: serial.baud_divisor_high,
            interrupt_enable: serial.interrupt_enable,
            interrupt_identification: serial.interrupt_identification,
            line_control: serial.line_control,
            modem_control: serial.modem_control,
            scratch: serial.scratch,
            input: serial.in_buffer,
        }
    }
}

impl TryFrom<&ConsoleState> for Console {
    type Error = DeviceStateError;

    fn try_from(state: &ConsoleState) -> Result<Console, DeviceStateError> {
        let register = |register, value| Err(DeviceStateError::ConsoleRegister { register, value });
        if state.interrupt_enable & !INTERRUPT_ENABLE_MASK != 0 {
            return register("interrupt_enable", state.interrupt_enable);
        }
        if !INTERRUPT_IDENTIFICATIONS.contains(&state.interrupt_identification) {
            return register("interrupt_identification", state.interrupt_identification);
        }
        let data_ready = if state.input.is_empty() { 0 } else { DATA_READY };
        let serial = SerialState {
            baud_divisor_low: state.baud_divisor_low,
            baud_divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: TRANSMITTER_EMPTY | data_ready,
            modem_control: state.modem_control,
            scratch: state.scratch,
            in_buffer: state.input.clone(),
            ..SerialState::default()
        };
        match Serial::from_state(&serial, Unwired, NoEvents, Vec::new()) {
            Ok(serial) => Ok(Console { serial }),
            Err(Error::FullFifo | Error::IOError(_)) => {
                Err(DeviceStateError::ConsoleInput { length: state.input.len() })
            }
            Err(Error::Trigger(never)) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_no_console_saves_is_refused() {
        let good = Console::new().save();
        assert!(Console::try_from(&good).is_ok());
        let bad = [
            ConsoleState { interrupt_enable: 0x10, ..good.clone() },
            ConsoleState { interrupt_identification: 0, ..good.clone() },
            ConsoleState { input: vec![0; 65], ..good },
        ];
        for state in bad {
            assert!(Console::try_from(&state).is_err(), "{state:?}");
        }
    }
}
