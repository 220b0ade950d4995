//! The devices, driven by a guest that may do anything: ports, PCI configuration, virtio registers, and rings in its memory.

#![no_main]

use echovisor_fuzz::guest::{BAR, CONFIG, Guest, table};
use echovisor_machine::{
    boot::layout::{CONSOLE_PORT, CRASH_PORT, DOORBELL_PORT, PCI_ADDRESS_PORT, PCI_DATA_PORT, POWER_PORT},
    devices::Devices,
};
use libfuzzer_sys::fuzz_target;

/// Effects of one step, at most: the entries of the largest transmit queue.
const EFFECTS_MAX: usize = 256;
const STEPS_MAX: usize = 400;

fuzz_target!(|data: &[u8]| {
    let mut guest = Guest::new();
    let mut input = Input(data);
    for _ in 0..STEPS_MAX {
        if input.0.is_empty() {
            break;
        }
        guest.effects = 0;
        step(&mut guest, &mut input);
        assert!(guest.effects <= EFFECTS_MAX, "one step has a bound");
        // The state is all there is: nothing is lost when the guest goes on in another process.
        let saved = guest.devices.save();
        guest.devices =
            Devices::restore(&CONFIG, &saved, &guest.memory).expect("what is saved can be restored");
        assert_eq!(guest.devices.save(), saved);
    }
});

/// The rest of the input; behind its end there are zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn number(&mut self, width: usize) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.bytes(width);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }
}

/// Takes one step of the input.
fn step(guest: &mut Guest, input: &mut Input<'_>) {
    let step = input.byte();
    let width = 1 << (step >> 4 & 3);
    match step & 15 {
        0 => guest.output(port(input), width.min(4), input.number(width.min(4))),
        1 => guest.devices.port_read(port(input), &mut [0; 8][..width.min(4)]),
        2 => guest.write(BAR + input.number(2), width, input.number(width)),
        3 => guest.devices.mmio_read(BAR + input.number(2), &mut [0; 8][..width]),
        4 => guest.write(input.number(8), width, input.number(width)),
        5 => guest.devices.mmio_read(input.number(8), &mut [0; 8][..width]),
        6 => {
            let address = table(input.number(1)) + input.number(2) % 0x3000;
            let len = usize::from(input.byte());
            guest.put(address, input.bytes(len));
        }
        7 => {
            // A descriptor: address, length, flags, next.
            let at = table(input.number(1)) + 16 * (input.number(1) % 256);
            let address = if step & 0x80 == 0 { 0x40_0000 + input.number(2) } else { input.number(8) };
            guest.put(at, &address.to_le_bytes());
            guest.put(at + 8, &(input.number(if step & 0x40 == 0 { 2 } else { 4 }) as u32).to_le_bytes());
            guest.put(at + 12, input.bytes(2));
            guest.put(at + 14, &[input.byte(), 0]);
        }
        8 => guest.offer(input.byte(), input.byte()),
        9 => {
            let len = input.number(2) as usize % 9300;
            let wanted = guest.devices.frames_wanted(&guest.memory);
            let taken = guest.devices.receive_frame(&vec![0x5a; len], &guest.memory);
            assert!(taken.is_ok() == (wanted > 0) || len > 9216, "what is wanted can be delivered");
        }
        10 => {
            let len = usize::from(input.byte());
            let wanted = guest.devices.console_wanted();
            assert_eq!(guest.devices.receive_console(&vec![b'x'; len]).is_ok(), len <= wanted);
        }
        11 => guest.bring_up(1 << (input.byte() % 9)),
        _ => guest.output(DOORBELL_PORT, 4, 0),
    }
}

/// A port: one that has a device, or any.
fn port(input: &mut Input<'_>) -> u16 {
    let known =
        [CONSOLE_PORT, PCI_ADDRESS_PORT, PCI_DATA_PORT, PCI_DATA_PORT, POWER_PORT, CRASH_PORT, DOORBELL_PORT];
    let choice = input.byte();
    match known.get(usize::from(choice & 7)) {
        Some(port) => port + u16::from(choice >> 3 & 7),
        None => input.number(2) as u16,
    }
}
