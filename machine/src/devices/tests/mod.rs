//! Tests of all devices together, through the ports and addresses that a guest uses.

mod guest;
mod hostile;
mod negotiation;
mod random;
mod restore;
mod traffic;

use echovisor_event::limits::{BYTES_MAX, MEMORY_MIN};

use self::guest::Guest;
use super::*;

#[test]
fn ports_without_a_device_read_as_ones_and_ignore_writes() {
    let mut guest = Guest::new();
    let before = guest.devices.save();
    for (port, width) in
        [(0x60, 1), (0x3f7, 1), (0x400, 1), (CONSOLE_PORT, 2), (PCI_ADDRESS_PORT, 1), (0xffff, 4)]
    {
        assert_eq!(guest.output(port, width, 0), Request::None);
        assert_eq!(guest.input(port, width), u32::MAX >> (32 - 8 * width), "port {port:#x}");
    }
    assert_eq!(guest.devices.save(), before);
    assert!(guest.effects.is_empty());
}

#[test]
fn addresses_without_a_device_read_as_ones_and_ignore_writes() {
    let mut guest = Guest::new();
    let before = guest.devices.save();
    for address in [MEMORY_MIN, 0xdfff_ffff, 0xe000_0000, u64::MAX] {
        guest.mmio_write(address, 8, 0);
        assert_eq!(guest.mmio_read(address, 8), u64::MAX, "{address:#x}");
    }
    assert_eq!(guest.devices.save(), before);
}

#[test]
fn the_machine_ports_ask_the_run_loop() {
    let mut guest = Guest::new();
    assert_eq!(guest.output(DOORBELL_PORT, 4, 7), Request::Wait);
    assert_eq!(guest.output(POWER_PORT, 4, 42), Request::PowerOff(42));
    assert_eq!(guest.output(CRASH_PORT, 1, 0), Request::Crash);
    assert_eq!(guest.output(DOORBELL_PORT, 1, 7), Request::None);
    assert_eq!(guest.output(POWER_PORT, 2, 42), Request::None);
}

#[test]
fn the_bus_has_a_bridge_and_the_network_device() {
    let mut guest = Guest::new();
    assert_eq!(guest.config_read(0, 0), 0x0d57_8086);
    assert_eq!(guest.config_read(0, 8) >> 8, 0x06_0000);
    assert_eq!(guest.config_read(1, 0), 0x1041_1af4);
    assert_eq!(guest.config_read(1, 8), 0x0200_0001);
    for slot in 2..32 {
        assert_eq!(guest.config_read(slot, 0), u32::MAX, "slot {slot}");
    }
    // Single bytes and words of a register are read where they lie.
    guest.set_port(PCI_ADDRESS_PORT, 4, 0x8000_0800);
    assert_eq!(guest.input(PCI_DATA_PORT + 2, 2), 0x1041);
    assert_eq!(guest.input(PCI_DATA_PORT + 1, 1), 0x1a);
}

#[test]
fn a_machine_without_network_has_no_network_device() {
    let mut guest = Guest::with(&DevicesConfig { mac: None, mtu: 1500 });
    assert_eq!(guest.config_read(1, 0), u32::MAX);
    assert_eq!(guest.output(DOORBELL_PORT, 4, 0), Request::Wait);
    assert_eq!(guest.devices.frames_wanted(&guest.memory), 0);
    assert_eq!(guest.receive(&[0; 60]), Err(DeliveryError::FrameUnwanted));
}

#[test]
fn the_bar_can_be_moved() {
    let mut guest = Guest::new();
    let bar = guest.bar();
    assert_eq!(bar, 0xe000_4000);
    guest.config_write(1, 0x10, u32::MAX);
    assert_eq!(guest.config_read(1, 0x10), 0xffff_c000);
    guest.config_write(1, 0x10, 0xe008_0000);
    assert_eq!(guest.mmio_read(bar + 0x12, 2), 0xffff);
    assert_eq!(guest.mmio_read(0xe008_0012, 2), 2, "num_queues");
    guest.config_write(1, 0x04, 0);
    assert_eq!(guest.mmio_read(0xe008_0012, 2), 0xffff);
}

#[test]
fn console_bytes_come_and_go() {
    let mut guest = Guest::new();
    let wanted = guest.devices.console_wanted();
    assert!((1..=BYTES_MAX).contains(&wanted));
    guest.devices.receive_console(b"hi").unwrap();
    assert_eq!(guest.devices.console_wanted(), wanted - 2);
    for byte in *b"hi" {
        assert_eq!(guest.input(CONSOLE_PORT, 1), u32::from(byte));
        guest.set_port(CONSOLE_PORT, 1, byte.into());
    }
    assert_eq!(guest.effects, [guest::Said::Console(b"h".to_vec()), guest::Said::Console(b"i".to_vec())]);
}
