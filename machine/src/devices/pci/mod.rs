//! The PCI bus as software sees it: configuration mechanism 1 and configuration spaces (PCI 3.0, 3.2.2.3 and 6).

mod config_space;
pub(super) mod state;

pub(super) use self::config_space::{ConfigSpace, Identity};
use super::error::DeviceStateError;

/// `CONFIG_ADDRESS`: accesses to the data register are configuration accesses.
const ENABLE: u32 = 1 << 31;
/// `CONFIG_ADDRESS`: the bits that exist; 30 to 24 and 1 to 0 are reserved.
const ADDRESS_MASK: u32 = 0x80ff_fffc;

/// The address register of configuration mechanism 1 (PCI 3.0, 3.2.2.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConfigAddress(u32);

impl ConfigAddress {
    pub(super) fn get(self) -> u32 {
        self.0
    }

    pub(super) fn set(&mut self, value: u32) {
        self.0 = value & ADDRESS_MASK;
    }

    /// The slot on bus 0, and the byte in its configuration space, that an access to the data register at `offset`
    /// means. `None` if that is no configuration access, or one to another bus or another function than 0.
    pub(super) fn target(self, offset: u16) -> Option<(u8, usize)> {
        let (bus, function) = (self.0 >> 16 & 0xff, self.0 >> 8 & 0x7);
        if self.0 & ENABLE == 0 || bus != 0 || function != 0 {
            return None;
        }
        let slot = self.0 >> 11 & 0x1f;
        let register = self.0 & 0xfc;
        Some((slot as u8, register as usize + usize::from(offset)))
    }
}

impl TryFrom<u32> for ConfigAddress {
    type Error = DeviceStateError;

    fn try_from(value: u32) -> Result<ConfigAddress, DeviceStateError> {
        if value & !ADDRESS_MASK != 0 {
            return Err(DeviceStateError::ConfigAddress { value });
        }
        Ok(ConfigAddress(value))
    }
}

/// The host bridge: it does nothing, but systems look for one before they believe in the bus.
pub(super) fn host_bridge() -> ConfigSpace {
    ConfigSpace::new(&Identity {
        // Intel's identity for the bridges of virtual machines, known to have no quirks.
        vendor: 0x8086,
        device: 0x0d57,
        revision: 0,
        class: 0x06_0000,
        subsystem_vendor: 0,
        subsystem: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_register_selects_slot_and_register() {
        let mut address = ConfigAddress::default();
        assert_eq!(address.target(0), None);
        address.set(0x8000_0800 | 0x3c);
        assert_eq!(address.target(0), Some((1, 0x3c)));
        assert_eq!(address.target(3), Some((1, 0x3f)));
        address.set(0xffff_ffff);
        assert_eq!(address.get(), ADDRESS_MASK);
        assert_eq!(address.target(0), None, "bus 255");
        address.set(0x8000_0100);
        assert_eq!(address.target(0), None, "function 1");
        address.set(0x0000_0800);
        assert_eq!(address.target(0), None, "not enabled");
    }

    #[test]
    fn reserved_bits_are_refused() {
        assert!(ConfigAddress::try_from(0x8000_0800).is_ok());
        assert!(ConfigAddress::try_from(0x8000_0801).is_err());
    }
}
