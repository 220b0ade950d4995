//! A guest with a virtio driver, written by hand so that it can also do what no driver may.

use echovisor_event::{Effect, limits::MEMORY_MIN};
use vm_memory::{Bytes as _, GuestAddress};

use super::super::{Context, DeliveryError, Devices, DevicesConfig, Request};
use crate::{
    boot::layout::{DOORBELL_PORT, PCI_ADDRESS_PORT, PCI_DATA_PORT},
    memory::Memory,
};

pub(super) const CONFIG: DevicesConfig =
    DevicesConfig { mac: Some([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]), mtu: 1500 };

pub(super) const RECEIVE: u16 = 0;
pub(super) const TRANSMIT: u16 = 1;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

pub(super) const STATUS: u64 = 0x14;
pub(super) const ISR: u64 = 0x1000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const NEEDS_RESET: u64 = 64;

/// VERSION_1, STATUS, MAC, MTU.
pub(super) const FEATURES: u64 = 1 << 32 | 1 << 16 | 1 << 5 | 1 << 3;

/// An effect that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Frame(Vec<u8>),
    Console(Vec<u8>),
}

pub(super) struct Guest {
    pub(super) devices: Devices,
    pub(super) memory: Memory,
    pub(super) effects: Vec<Said>,
    /// How many chains have been made available, by queue.
    pub(super) available: [u16; 2],
    pub(super) size: u16,
}

impl Guest {
    pub(super) fn new() -> Guest {
        Guest::with(&CONFIG)
    }

    pub(super) fn with(config: &DevicesConfig) -> Guest {
        let memory = Memory::new(MEMORY_MIN).unwrap();
        Guest { devices: Devices::new(config), memory, effects: Vec::new(), available: [0; 2], size: 0 }
    }

    /// A guest whose network device works, with queues of `size` entries.
    pub(super) fn ready(size: u16) -> Guest {
        let mut guest = Guest::new();
        guest.negotiate(FEATURES);
        guest.set_up_queues(size);
        guest.write(STATUS, 1, 15);
        guest
    }

    pub(super) fn negotiate(&mut self, features: u64) {
        for status in [0, 1, 3] {
            self.write(STATUS, 1, status);
        }
        for half in 0..2 {
            self.write(0x08, 4, half);
            self.write(0x0c, 4, features >> (32 * half) & 0xffff_ffff);
        }
        self.write(STATUS, 1, 11);
    }

    pub(super) fn set_up_queues(&mut self, size: u16) {
        self.size = size;
        for queue in [RECEIVE, TRANSMIT] {
            self.write(0x16, 2, queue.into());
            self.write(0x18, 2, size.into());
            self.write(0x20, 8, table(queue));
            self.write(0x28, 8, available(queue));
            // Also by halves.
            self.write(0x30, 4, used(queue));
            self.write(0x34, 4, 0);
            self.write(0x1c, 2, 1);
        }
    }

    /// Writes a descriptor.
    pub(super) fn describe(
        &mut self,
        queue: u16,
        index: u16,
        address: u64,
        length: u32,
        flags: u16,
        next: u16,
    ) {
        let at = GuestAddress(table(queue) + 16 * u64::from(index));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.mmap().write_slice(&bytes, at).unwrap();
    }

    /// Puts a chain into the available ring.
    pub(super) fn offer(&mut self, queue: u16, head: u16) {
        let index = &mut self.available[usize::from(queue)];
        let slot = u64::from(*index % self.size);
        *index = index.wrapping_add(1);
        let index = *index;
        self.put_u16(available(queue) + 4 + 2 * slot, head);
        self.put_u16(available(queue) + 2, index);
    }

    /// Makes one buffer of `length` bytes available for reception: descriptor `index`.
    pub(super) fn offer_buffer(&mut self, index: u16, length: u32) {
        self.describe(RECEIVE, index, buffer(RECEIVE, index), length, WRITE, 0);
        self.offer(RECEIVE, index);
    }

    /// Makes a frame available to be sent: descriptor `index`.
    pub(super) fn offer_frame(&mut self, index: u16, frame: &[u8]) {
        let address = buffer(TRANSMIT, index);
        self.memory.mmap().write_slice(&[0; 12], GuestAddress(address)).unwrap();
        self.memory.mmap().write_slice(frame, GuestAddress(address + 12)).unwrap();
        self.describe(TRANSMIT, index, address, 12 + frame.len() as u32, 0, 0);
        self.offer(TRANSMIT, index);
    }

    /// The entries of the used ring, at most as many as the ring has: descriptor and length.
    pub(super) fn used(&self, queue: u16) -> Vec<(u32, u32)> {
        let count = self.get_u16(used(queue) + 2).min(self.size);
        let entry = |slot: u64| {
            let bytes = self.bytes(used(queue) + 4 + 8 * slot, 8);
            let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            (number(0), number(4))
        };
        (0..count.into()).map(entry).collect()
    }

    pub(super) fn doorbell(&mut self) {
        assert_eq!(self.output(DOORBELL_PORT, 4, 0), Request::Wait);
    }

    pub(super) fn receive(&mut self, frame: &[u8]) -> Result<(), DeliveryError> {
        self.devices.receive_frame(frame, &self.memory)
    }

    pub(super) fn wanted(&self) -> usize {
        self.devices.frames_wanted(&self.memory)
    }

    pub(super) fn bar(&mut self) -> u64 {
        self.config_read(1, 0x10).into()
    }

    /// Reads from the network device's BAR.
    pub(super) fn read(&mut self, offset: u64, width: usize) -> u64 {
        let address = self.bar() + offset;
        self.mmio_read(address, width)
    }

    /// Writes to the network device's BAR.
    pub(super) fn write(&mut self, offset: u64, width: usize, value: u64) {
        let address = self.bar() + offset;
        self.mmio_write(address, width, value);
    }

    pub(super) fn mmio_read(&mut self, address: u64, width: usize) -> u64 {
        let mut data = [0; 8];
        self.devices.mmio_read(address, &mut data[..width]);
        u64::from_le_bytes(data)
    }

    pub(super) fn mmio_write(&mut self, address: u64, width: usize, value: u64) {
        let effects = &mut self.effects;
        let mut context = Context { memory: &self.memory, effects: &mut |effect| effects.push(keep(effect)) };
        self.devices.mmio_write(address, &value.to_le_bytes()[..width], &mut context);
    }

    pub(super) fn input(&mut self, port: u16, width: usize) -> u32 {
        let mut data = [0; 4];
        self.devices.port_read(port, &mut data[..width]);
        u32::from_le_bytes(data)
    }

    pub(super) fn output(&mut self, port: u16, width: usize, value: u32) -> Request {
        let effects = &mut self.effects;
        let mut context = Context { memory: &self.memory, effects: &mut |effect| effects.push(keep(effect)) };
        self.devices.port_write(port, &value.to_le_bytes()[..width], &mut context)
    }

    /// Writes to a port that asks nothing of the run loop.
    pub(super) fn set_port(&mut self, port: u16, width: usize, value: u32) {
        assert_eq!(self.output(port, width, value), Request::None);
    }

    pub(super) fn config_read(&mut self, slot: u32, register: u32) -> u32 {
        self.set_port(PCI_ADDRESS_PORT, 4, 0x8000_0000 | slot << 11 | register);
        self.input(PCI_DATA_PORT, 4)
    }

    pub(super) fn config_write(&mut self, slot: u32, register: u32, value: u32) {
        self.set_port(PCI_ADDRESS_PORT, 4, 0x8000_0000 | slot << 11 | register);
        self.set_port(PCI_DATA_PORT, 4, value);
    }

    pub(super) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.mmap().read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(super) fn get_u16(&self, address: u64) -> u16 {
        self.memory.mmap().read_obj(GuestAddress(address)).unwrap()
    }

    pub(super) fn put_u16(&mut self, address: u64, value: u16) {
        self.memory.mmap().write_obj(value, GuestAddress(address)).unwrap();
    }

    /// The same guest in other memory, with devices that were saved and restored.
    pub(super) fn restored(&self) -> Guest {
        let memory = Memory::new(self.memory.size()).unwrap();
        let mut page = [0; 4096];
        for index in 0..memory.pages() {
            self.memory.read_page(index, &mut page);
            if page != [0; 4096] {
                memory.write_page(index, &page);
            }
        }
        let devices = Devices::restore(&CONFIG, &self.devices.save(), &memory).unwrap();
        Guest { devices, memory, effects: self.effects.clone(), ..*self }
    }

    /// Fails unless both guests are in the same state.
    pub(super) fn assert_same(&self, other: &Guest) {
        assert_eq!(self.devices.save(), other.devices.save());
        assert_eq!(self.effects, other.effects);
        let [mut one, mut two] = [[0; 4096]; 2];
        for index in 0..self.memory.pages() {
            self.memory.read_page(index, &mut one);
            other.memory.read_page(index, &mut two);
            assert!(one == two, "page {index} differs");
        }
    }
}

fn keep(effect: Effect<'_>) -> Said {
    match effect {
        Effect::Frame(frame) => Said::Frame(frame.to_vec()),
        Effect::Console(bytes) => Said::Console(bytes.to_vec()),
        Effect::PowerOff(_) => panic!("the run loop reports that"),
    }
}

/// Address of a queue's descriptor table.
pub(super) fn table(queue: u16) -> u64 {
    0x30_0000 + 0x1_0000 * u64::from(queue)
}

/// Address of a queue's available ring.
pub(super) fn available(queue: u16) -> u64 {
    table(queue) + 0x1000
}

/// Address of a queue's used ring.
pub(super) fn used(queue: u16) -> u64 {
    table(queue) + 0x2000
}

/// Address of a buffer with room for the longest frame.
pub(super) fn buffer(queue: u16, index: u16) -> u64 {
    0x40_0000 + 0x10_0000 * u64::from(queue) + 0x4000 * u64::from(index)
}

/// A frame that is unlike others.
pub(super) fn frame(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}
