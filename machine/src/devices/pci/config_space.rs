//! The configuration space of one PCI function: a type 0 header, at most one memory BAR, capabilities (PCI 3.0, 6.1).

/// Size of a configuration space, bytes.
pub(super) const SIZE: usize = 256;

const VENDOR: usize = 0x00;
const DEVICE: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const CACHE_LINE_SIZE: usize = 0x0c;
const BAR_0: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM: usize = 0x2e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const HEADER_END: usize = 0x40;

/// `COMMAND`: the function answers at its memory BAR.
const COMMAND_MEMORY: u16 = 1 << 1;
/// `COMMAND`: the function may access memory. Drivers set it; a device of this machine works without, too.
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// `COMMAND`: the function must not assert its interrupt line.
const COMMAND_INTERRUPT_DISABLE: u16 = 1 << 10;
/// `STATUS`: there is a list of capabilities.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// `INTERRUPT_LINE`: not connected.
const INTERRUPT_LINE_NONE: u8 = 0xff;

/// What a function is.
pub(in crate::devices) struct Identity {
    pub(in crate::devices) vendor: u16,
    pub(in crate::devices) device: u16,
    pub(in crate::devices) revision: u8,
    /// Class, subclass, programming interface: 24 bits.
    pub(in crate::devices) class: u32,
    pub(in crate::devices) subsystem_vendor: u16,
    pub(in crate::devices) subsystem: u16,
}

/// The configuration space of one function.
pub(in crate::devices) struct ConfigSpace {
    pub(super) bytes: [u8; SIZE],
    /// The bits that the guest may write.
    pub(super) writable: [u8; SIZE],
    /// Size of the memory BAR, a power of two; 0: there is none.
    bar_size: u32,
    /// Where the next capability goes, and where its offset is to be entered in the list.
    next_capability: (usize, usize),
}

impl ConfigSpace {
    /// A function without BAR and capabilities.
    pub(in crate::devices) fn new(identity: &Identity) -> ConfigSpace {
        let mut space = ConfigSpace {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            bar_size: 0,
            next_capability: (HEADER_END, CAPABILITIES),
        };
        space.put(VENDOR, &identity.vendor.to_le_bytes());
        space.put(DEVICE, &identity.device.to_le_bytes());
        space.put(REVISION, &[identity.revision]);
        space.put(CLASS, &identity.class.to_le_bytes()[..3]);
        space.put(SUBSYSTEM_VENDOR, &identity.subsystem_vendor.to_le_bytes());
        space.put(SUBSYSTEM, &identity.subsystem.to_le_bytes());
        space.writable[CACHE_LINE_SIZE] = 0xff;
        space
    }

    /// Adds a memory BAR of `size` bytes that stands at `base` and is enabled, as firmware would leave it.
    pub(in crate::devices) fn with_memory_bar(mut self, base: u32, size: u32) -> ConfigSpace {
        assert!(
            size.is_power_of_two() && size >= 16 && base.is_multiple_of(size),
            "a BAR is aligned to its size"
        );
        self.bar_size = size;
        self.put(BAR_0, &base.to_le_bytes());
        self.allow(BAR_0, &(!(size - 1)).to_le_bytes());
        self.put(COMMAND, &COMMAND_MEMORY.to_le_bytes());
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTERRUPT_DISABLE;
        self.allow(COMMAND, &command.to_le_bytes());
        self
    }

    /// Adds the interrupt pin INTA#.
    pub(in crate::devices) fn with_interrupt_pin(mut self) -> ConfigSpace {
        self.put(INTERRUPT_PIN, &[1]);
        self.put(INTERRUPT_LINE, &[INTERRUPT_LINE_NONE]);
        self.allow(INTERRUPT_LINE, &[0xff]);
        self
    }

    /// Adds a capability at the end of the list. `body` is what follows its number and the link to the next one.
    pub(in crate::devices) fn with_capability(mut self, id: u8, body: &[u8]) -> ConfigSpace {
        let (at, link) = self.next_capability;
        let end = at + 2 + body.len();
        assert!(end <= SIZE, "the capabilities fit");
        self.put(link, &[at as u8]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.next_capability = (end.next_multiple_of(4), at + 1);
        self
    }

    /// Reads from byte `register` on. What lies beyond the end reads as ones.
    pub(in crate::devices) fn read(&self, register: usize, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(self.bytes.iter().skip(register)) {
            *to = *from;
        }
    }

    /// Writes from byte `register` on. Bits that cannot be written keep their value, which is also how software learns
    /// the size of a BAR (PCI 3.0, 6.2.5.1).
    pub(in crate::devices) fn write(&mut self, register: usize, data: &[u8]) {
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(register);
        for ((byte, writable), value) in bytes.zip(data) {
            *byte = *byte & !writable | value & writable;
        }
    }

    /// The offset in the memory BAR at which an access of `length` bytes arrives; `None` if it is not for this
    /// function.
    pub(in crate::devices) fn bar_offset(&self, address: u64, length: usize) -> Option<u64> {
        let command = u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]]);
        if command & COMMAND_MEMORY == 0 {
            return None;
        }
        let bar: [u8; 4] = std::array::from_fn(|index| self.bytes[BAR_0 + index]);
        let offset = address.checked_sub(u32::from_le_bytes(bar).into())?;
        let end = offset.checked_add(length as u64)?;
        (end <= self.bar_size.into()).then_some(offset)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u32 = 0xE000_4000;

    fn function() -> ConfigSpace {
        let identity = Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 1,
            class: 0x02_0000,
            subsystem_vendor: 0x9abc,
            subsystem: 0xdef0,
        };
        ConfigSpace::new(&identity)
            .with_memory_bar(BASE, 0x4000)
            .with_interrupt_pin()
            .with_capability(9, &[4, 1])
            .with_capability(9, &[6, 2, 0, 0])
    }

    fn read_u32(space: &ConfigSpace, register: usize) -> u32 {
        let mut data = [0xff; 4];
        space.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn identity_is_read_only() {
        let mut space = function();
        for register in [VENDOR, REVISION, SUBSYSTEM_VENDOR, 0x40] {
            let before = read_u32(&space, register);
            space.write(register, &[0xff; 4]);
            assert_eq!(read_u32(&space, register), before, "register {register:#x}");
        }
        assert_eq!(read_u32(&space, VENDOR), 0x5678_1234);
        assert_eq!(read_u32(&space, REVISION), 0x0200_0001);
        assert_eq!(read_u32(&space, SUBSYSTEM_VENDOR), 0xdef0_9abc);
    }

    #[test]
    fn a_probe_shows_the_size_of_the_bar() {
        let mut space = function();
        space.write(BAR_0, &[0xff; 4]);
        assert_eq!(read_u32(&space, BAR_0), 0xffff_c000);
        space.write(BAR_0, &BASE.to_le_bytes());
        assert_eq!(read_u32(&space, BAR_0), BASE);
        space.write(BAR_0 + 4, &[0xff; 4]);
        assert_eq!(read_u32(&space, BAR_0 + 4), 0, "there is no second BAR");
    }

    #[test]
    fn the_bar_answers_while_it_is_enabled() {
        let mut space = function();
        let base = u64::from(BASE);
        assert_eq!(space.bar_offset(base, 4), Some(0));
        assert_eq!(space.bar_offset(base + 0x3ffc, 4), Some(0x3ffc));
        assert_eq!(space.bar_offset(base + 0x3ffd, 4), None);
        assert_eq!(space.bar_offset(base - 1, 1), None);
        assert_eq!(space.bar_offset(u64::MAX, 8), None);
        space.write(COMMAND, &[0, 0]);
        assert_eq!(space.bar_offset(base, 4), None);
        space.write(COMMAND, &[0xff, 0xff]);
        assert_eq!(read_u32(&space, COMMAND) as u16, 0x0406);
        assert_eq!(space.bar_offset(base, 4), Some(0));
    }

    #[test]
    fn capabilities_form_a_list() {
        let space = function();
        assert_eq!(read_u32(&space, COMMAND) >> 16, u32::from(STATUS_CAPABILITIES));
        assert_eq!(read_u32(&space, CAPABILITIES) as u8, 0x40);
        assert_eq!(read_u32(&space, 0x40), 0x0104_4409);
        assert_eq!(read_u32(&space, 0x44), 0x0206_0009);
    }

    #[test]
    fn an_access_beyond_the_end_is_harmless() {
        let mut space = function();
        space.write(254, &[1; 4]);
        let mut data = [0xff; 4];
        space.read(254, &mut data);
        assert_eq!(data, [0, 0, 0xff, 0xff]);
        space.write(300, &[1]);
    }
}
