//! The devices of the machine, and which of them answers at which address.
//!
//! A device is a pure function of its own state, of guest memory and of what it is given: it gets the memory and a sink
//! for its effects as parameters, and knows no file, socket, clock or thread.

mod bytes;
mod console;
mod error;
mod pci;
mod state;
mod virtio;

use echovisor_event::{Effect, limits::BURST_MAX};

use self::{
    console::Console,
    pci::{ConfigAddress, ConfigSpace, host_bridge},
    virtio::net::Net,
};
pub use self::{
    console::state::ConsoleState,
    error::{DeliveryError, DeviceStateError},
    pci::state::ConfigSpaceState,
    state::DevicesState,
    virtio::{
        fault::Fault,
        state::{QueueState, Registers, TransportState},
    },
};
use crate::{
    boot::layout::{CONSOLE_PORT, CRASH_PORT, DOORBELL_PORT, PCI_ADDRESS_PORT, PCI_DATA_PORT, POWER_PORT},
    memory::Memory,
};

/// Last of the eight ports of the console.
const CONSOLE_LAST: u16 = CONSOLE_PORT + 7;
/// Last of the four ports of the PCI data register.
const PCI_DATA_LAST: u16 = PCI_DATA_PORT + 3;

/// PCI slot of the host bridge.
const HOST_BRIDGE_SLOT: u8 = 0;
/// PCI slot of the network device.
const NET_SLOT: u8 = 1;

/// Which devices a machine has, and what a guest may read of their configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicesConfig {
    /// MAC address of the network device; `None`: the machine has no network device.
    pub mac: Option<[u8; 6]>,
    /// Largest packet that the network carries behind an Ethernet header, bytes.
    pub mtu: u16,
}

/// All devices of one machine.
pub struct Devices {
    console: Console,
    config_address: ConfigAddress,
    host_bridge: ConfigSpace,
    net: Option<Net>,
}

/// What devices need of the machine while they work.
pub struct Context<'a> {
    /// The guest's RAM.
    pub memory: &'a Memory,
    /// Takes what the guest does to the outside.
    pub effects: &'a mut dyn FnMut(Effect<'_>),
}

/// What a write to a port asks of the run loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Request {
    /// Nothing.
    None,
    /// The guest idles until there is input or its deadline has passed.
    Wait,
    /// The guest ends itself with this exit code. The effect of it is the run loop's to report.
    PowerOff(u32),
    /// An exception ended the guest.
    Crash,
}

impl Devices {
    /// All devices as they are after power-on.
    #[must_use]
    pub fn new(config: &DevicesConfig) -> Devices {
        Devices {
            console: Console::new(),
            config_address: ConfigAddress::default(),
            host_bridge: host_bridge(),
            net: config.mac.map(|mac| Net::new(NET_SLOT, mac, config.mtu)),
        }
    }

    /// Reads one item of 1, 2 or 4 bytes from a port. Ports without a device read as ones.
    pub fn port_read(&mut self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match (port, data.len()) {
            (CONSOLE_PORT..=CONSOLE_LAST, 1) => data[0] = self.console.read(port - CONSOLE_PORT),
            (PCI_ADDRESS_PORT, 4) => bytes::fill(data, self.config_address.get().into()),
            (PCI_DATA_PORT..=PCI_DATA_LAST, _) => {
                if let Some((config_space, register)) = self.config_space(port - PCI_DATA_PORT) {
                    config_space.read(register, data);
                }
            }
            _ => {}
        }
    }

    /// Writes one item of 1, 2 or 4 bytes to a port. Ports without a device ignore it.
    pub fn port_write(&mut self, port: u16, data: &[u8], context: &mut Context<'_>) -> Request {
        match (port, data.len()) {
            (CONSOLE_PORT..=CONSOLE_LAST, 1) => {
                self.console.write(port - CONSOLE_PORT, data[0], context.effects);
            }
            (DOORBELL_PORT, 4) => {
                if let Some(net) = &mut self.net {
                    net.doorbell(context);
                }
                return Request::Wait;
            }
            (POWER_PORT, 4) => return Request::PowerOff(bytes::value(data) as u32),
            (CRASH_PORT, _) => return Request::Crash,
            (PCI_ADDRESS_PORT, 4) => self.config_address.set(bytes::value(data) as u32),
            (PCI_DATA_PORT..=PCI_DATA_LAST, _) => {
                if let Some((config_space, register)) = self.config_space(port - PCI_DATA_PORT) {
                    config_space.write(register, data);
                }
            }
            _ => {}
        }
        Request::None
    }

    /// Reads up to 8 bytes from an address without RAM. Addresses without a device read as ones.
    pub fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(net) = &mut self.net {
            net.mmio_read(address, data);
        }
    }

    /// Writes up to 8 bytes to an address without RAM. Addresses without a device ignore it.
    pub fn mmio_write(&mut self, address: u64, data: &[u8], context: &mut Context<'_>) {
        if let Some(net) = &mut self.net {
            net.mmio_write(address, data, context);
        }
    }

    /// How many frames the guest can take now.
    #[must_use]
    pub fn frames_wanted(&self, memory: &Memory) -> usize {
        self.net.as_ref().map_or(0, |net| net.frames_wanted(memory).min(BURST_MAX))
    }

    /// Puts a received frame into the guest's memory. A frame that is longer than the buffer that the guest offers for
    /// it is lost, as it is with any network card.
    ///
    /// # Errors
    /// If the guest did not want a frame ([`Devices::frames_wanted`]) or it is longer than a frame may be. Nothing has
    /// changed then.
    pub fn receive_frame(&mut self, frame: &[u8], memory: &Memory) -> Result<(), DeliveryError> {
        self.net.as_mut().ok_or(DeliveryError::FrameUnwanted)?.receive(frame, memory)
    }

    /// How many console bytes the guest can take now.
    #[must_use]
    pub fn console_wanted(&self) -> usize {
        self.console.space()
    }

    /// Puts received bytes into the console's FIFO.
    ///
    /// # Errors
    /// If they are more than the FIFO can take ([`Devices::console_wanted`]). Nothing has changed then.
    pub fn receive_console(&mut self, bytes: &[u8]) -> Result<(), DeliveryError> {
        self.console.receive(bytes)
    }

    /// Why the network device has stopped; `None` while it has not. Only the guest can help: by a reset of the device.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.net.as_ref().and_then(Net::fault)
    }

    /// The function that the PCI address register selects, and the register in its configuration space that the data
    /// port at `offset` means.
    fn config_space(&mut self, offset: u16) -> Option<(&mut ConfigSpace, usize)> {
        let (slot, register) = self.config_address.target(offset)?;
        let config_space = match slot {
            HOST_BRIDGE_SLOT => &mut self.host_bridge,
            NET_SLOT => self.net.as_mut()?.config_space(),
            _ => return None,
        };
        Some((config_space, register))
    }
}

#[cfg(test)]
mod tests;
