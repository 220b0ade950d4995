//! The contract of `docs/guest-abi.md` as the guest sees it.
//!
//! The machine has constants of its own (`machine/src/boot/layout.rs`), because neither side may depend on the other; a
//! test compares the two.
#![no_std]

/// Port of the 8250 console.
pub const CONSOLE_PORT: u16 = 0x3f8;
/// Port of the doorbell-and-wait device.
pub const DOORBELL_PORT: u16 = 0x600;
/// Port that powers the machine off; the value is the exit code.
pub const POWER_PORT: u16 = 0x604;
/// Port that only the exception stubs write.
pub const CRASH_PORT: u16 = 0x608;
/// Address register of PCI configuration mechanism 1.
pub const PCI_ADDRESS_PORT: u16 = 0xcf8;
/// Data register of PCI configuration mechanism 1.
pub const PCI_DATA_PORT: u16 = 0xcfc;

/// Address of the control page.
pub const CONTROL_ADDRESS: u64 = 0x10_0000;
/// First address a guest's segment may have.
pub const IMAGE_BASE: u64 = 0x20_0000;
/// Where RAM ends below the devices' windows.
pub const LOW_MEMORY_END: u64 = 0xC000_0000;
/// Where what there is more of it continues.
pub const HIGH_MEMORY: u64 = 1 << 32;
/// `Control::magic`.
pub const CONTROL_MAGIC: u64 = 0x524f_5349_564f_4843;
/// `Control::version`.
pub const CONTROL_VERSION: u32 = 1;
/// Longest argument string, bytes.
pub const ARGUMENTS_MAX: usize = 2048;

/// The page through which machine and guest speak besides the devices.
#[repr(C)]
pub struct Control {
    /// [`CONTROL_MAGIC`].
    pub magic: u64,
    /// [`CONTROL_VERSION`].
    pub version: u32,
    /// Bytes used of `arguments`.
    pub arguments_length: u32,
    /// Size of RAM, bytes.
    pub memory_size: u64,
    /// First free byte behind the guest's segments.
    pub image_end: u64,
    /// Virtual time until which the next doorbell may sleep, ns; written by the guest.
    pub deadline: u64,
    /// Virtual time since boot, ns; written by the machine.
    pub clock: u64,
    /// UNIX time of virtual time 0, ns; 0 while unknown.
    pub wall: u64,
    /// Entropy.
    pub seed: [u8; 32],
    /// Up to offset 1024.
    pub reserved: [u8; 936],
    /// `name=value` pairs, UTF-8.
    pub arguments: [u8; ARGUMENTS_MAX],
}

const _: () = assert!(core::mem::offset_of!(Control, arguments) == 1024);
