//! A guest whose driver may do anything.

use echovisor_event::{Effect, limits::MEMORY_MIN};
use echovisor_machine::{
    Memory,
    devices::{Context, Devices, DevicesConfig},
};
use vm_memory::{Bytes as _, GuestAddress};

/// Which devices it has.
pub const CONFIG: DevicesConfig = DevicesConfig { mac: Some([2, 0, 0, 0, 0, 1]), mtu: 1500 };

/// Where firmware puts the BAR of the network device.
pub const BAR: u64 = 0xE000_4000;

/// Devices, and the memory that they see.
pub struct Guest {
    /// Its devices.
    pub devices: Devices,
    /// Its RAM.
    pub memory: Memory,
    /// How many effects there were; whoever counts sets it to 0.
    pub effects: usize,
    /// How many chains have been offered, by queue.
    available: [u16; 2],
    size: u16,
}

impl Guest {
    /// A guest after power-on.
    ///
    /// # Panics
    /// If the host has no memory.
    #[must_use]
    pub fn new() -> Guest {
        let memory = Memory::new(MEMORY_MIN).expect("memory for a guest");
        Guest { devices: Devices::new(&CONFIG), memory, effects: 0, available: [0; 2], size: 8 }
    }

    /// Does what a driver does that behaves.
    pub fn bring_up(&mut self, size: u16) {
        (self.size, self.available) = (size, [0; 2]);
        let features: u64 = 1 << 32 | 1 << 16 | 1 << 5 | 1 << 3;
        for status in [0, 1, 3] {
            self.write(BAR + 0x14, 1, status);
        }
        for half in 0..2 {
            self.write(BAR + 0x08, 4, half);
            self.write(BAR + 0x0c, 4, features >> (32 * half) & 0xffff_ffff);
        }
        self.write(BAR + 0x14, 1, 11);
        for queue in 0..2 {
            self.put(table(queue) + 0x1000, &[0; 0x2000]);
            self.write(BAR + 0x16, 2, queue);
            self.write(BAR + 0x18, 2, size.into());
            for (register, offset) in [(0x20, 0), (0x28, 0x1000), (0x30, 0x2000)] {
                self.write(BAR + register, 8, table(queue) + offset);
            }
            self.write(BAR + 0x1c, 2, 1);
        }
        self.write(BAR + 0x14, 1, 15);
    }

    /// Puts a chain into the available ring.
    pub fn offer(&mut self, queue: u8, head: u8) {
        let queue = queue % 2;
        let index = self.available[usize::from(queue)];
        let ring = table(queue.into()) + 0x1000;
        self.put(ring + 4 + 2 * u64::from(index % self.size), &[head, 0]);
        self.put(ring + 2, &index.wrapping_add(1).to_le_bytes());
        self.available[usize::from(queue)] = index.wrapping_add(1);
    }

    /// Writes to a port.
    pub fn output(&mut self, port: u16, width: usize, value: u64) {
        let effects = &mut self.effects;
        let mut context = Context { memory: &self.memory, effects: &mut |effect| *effects += count(&effect) };
        let _ = self.devices.port_write(port, &value.to_le_bytes()[..width], &mut context);
    }

    /// Writes to an address without RAM.
    pub fn write(&mut self, address: u64, width: usize, value: u64) {
        let effects = &mut self.effects;
        let mut context = Context { memory: &self.memory, effects: &mut |effect| *effects += count(&effect) };
        self.devices.mmio_write(address, &value.to_le_bytes()[..width], &mut context);
    }

    /// Writes to RAM.
    ///
    /// # Panics
    /// If the address is not in RAM.
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        self.memory.mmap().write_slice(bytes, GuestAddress(address)).expect("an address in RAM");
    }
}

impl Default for Guest {
    fn default() -> Guest {
        Guest::new()
    }
}

/// Touches all of an effect, and counts it.
fn count(effect: &Effect<'_>) -> usize {
    match effect {
        Effect::Frame(bytes) | Effect::Console(bytes) => {
            std::hint::black_box(bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
        }
        Effect::PowerOff(_) => panic!("the run loop reports that"),
    }
    1
}

/// Where the rings of a queue lie.
#[must_use]
pub fn table(queue: u64) -> u64 {
    0x30_0000 + 0x1_0000 * (queue % 2)
}
