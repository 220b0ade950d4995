//! PCI configuration space through the ports of mechanism 1, and the network device in it.

use crate::hal::Identity;
use rt::port;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};

/// Where the contract puts the network device.
const NETWORK: DeviceFunction = DeviceFunction { bus: 0, device: 1, function: 0 };
/// What a slot without a device reads as.
const ABSENT: u32 = u32::MAX;
const ENABLE: u32 = 1 << 31;

/// Access to configuration space through an address and a data port.
struct Ports;

impl Ports {
    /// Selects a register; the next access of the data port goes there.
    fn select(&self, at: DeviceFunction, register: u8) {
        let slot = u32::from(at.bus) << 16 | u32::from(at.device) << 11 | u32::from(at.function) << 8;
        // SAFETY: the address register has no effect on memory.
        unsafe { port::write_u32(abi::PCI_ADDRESS_PORT, ENABLE | slot | u32::from(register & !3)) };
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        self.select(at, register);
        // SAFETY: configuration reads have no effect on memory.
        unsafe { port::read_u32(abi::PCI_DATA_PORT) }
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        self.select(at, register);
        // SAFETY: only the driver writes here, and what it turns on works on the queues that it set up.
        unsafe { port::write_u32(abi::PCI_DATA_PORT, data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// The network device, if the machine has one.
pub(crate) fn network() -> Option<PciTransport> {
    if Ports.read_word(NETWORK, 0) == ABSENT {
        return None;
    }
    let mut root = PciRoot::new(Ports);
    root.set_command(NETWORK, Command::MEMORY_SPACE | Command::BUS_MASTER);
    match PciTransport::new::<Identity, _>(&mut root, NETWORK) {
        Ok(transport) => Some(transport),
        Err(error) => panic!("the network device is not usable: {error}"),
    }
}
