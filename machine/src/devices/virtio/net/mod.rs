//! The network device (virtio 1.2, 5.1): one pair of queues, no offloads, no control queue.

mod receive;
mod transmit;

use echovisor_event::limits::FRAME_MAX;
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP},
};

use super::{
    super::{Context, error::DeviceStateError, pci::ConfigSpace},
    chain::Buffer,
    fault::Fault,
    state::TransportState,
    transport::{QUEUE_SIZE_MAX, Transport},
};
use crate::memory::Memory;

/// Queue of the buffers that wait for frames.
const RECEIVE: u16 = 0;
/// Queue of the frames to be sent.
const TRANSMIT: u16 = 1;

/// Length of `struct virtio_net_hdr`, which is before every frame, bytes (5.1.6).
const HEADER_LENGTH: usize = 12;
/// Length of an Ethernet header, without which there is no frame, bytes.
const FRAME_MIN: usize = 14;

const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MTU;

/// PCI's class of an Ethernet controller.
const CLASS: u32 = 0x02_0000;

/// Length of the device's configuration up to and including `mtu`, bytes (5.1.4).
const CONFIG_LENGTH: usize = 12;

/// The network device.
pub(in crate::devices) struct Net {
    transport: Transport,
    config: [u8; CONFIG_LENGTH],
    /// The buffers of the chain at hand; kept so that no frame needs an allocation.
    buffers: Vec<Buffer>,
    /// The header and frame at hand, for the same reason.
    packet: Box<[u8; HEADER_LENGTH + FRAME_MAX]>,
}

impl Net {
    pub(in crate::devices) fn new(slot: u8, mac: [u8; 6], mtu: u16) -> Net {
        Net {
            transport: Transport::new(slot, VIRTIO_ID_NET as u16, CLASS, FEATURES, CONFIG_LENGTH as u32, 2),
            config: config(mac, mtu),
            buffers: Vec::with_capacity(QUEUE_SIZE_MAX.into()),
            packet: Box::new([0; HEADER_LENGTH + FRAME_MAX]),
        }
    }

    /// The PCI function.
    pub(in crate::devices) fn config_space(&mut self) -> &mut ConfigSpace {
        &mut self.transport.config_space
    }

    /// Answers a read, if the address is one of the device's.
    pub(in crate::devices) fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.transport.read(address, data, &self.config);
    }

    /// Takes a write, if the address is one of the device's.
    pub(in crate::devices) fn mmio_write(&mut self, address: u64, data: &[u8], context: &mut Context<'_>) {
        if self.transport.write(address, data, context.memory.mmap()) == Some(TRANSMIT) {
            self.transmit(context);
        }
    }

    /// Serves all queues.
    pub(in crate::devices) fn doorbell(&mut self, context: &mut Context<'_>) {
        self.transmit(context);
        self.check_receive(context.memory);
    }

    /// Why the device has stopped.
    pub(in crate::devices) fn fault(&self) -> Option<Fault> {
        self.transport.registers.fault
    }

    pub(in crate::devices) fn save(&self) -> TransportState {
        self.transport.save()
    }

    pub(in crate::devices) fn restore(
        &mut self,
        state: &TransportState,
        memory: &Memory,
    ) -> Result<(), DeviceStateError> {
        self.transport.restore(state, memory.mmap())
    }
}

/// `struct virtio_net_config` (5.1.4).
fn config(mac: [u8; 6], mtu: u16) -> [u8; CONFIG_LENGTH] {
    let mut config = [0; CONFIG_LENGTH];
    config[..6].copy_from_slice(&mac);
    config[6..8].copy_from_slice(&(VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
    // 8..10: `max_virtqueue_pairs`, which only a device with VIRTIO_NET_F_MQ has.
    config[10..].copy_from_slice(&mtu.to_le_bytes());
    config
}
