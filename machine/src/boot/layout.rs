//! Where everything lies in the guest's address space (`docs/guest-abi.md`).

use echovisor_event::limits::MEMORY_MAX;

/// First I/O port of the 8250 console; it has eight.
pub const CONSOLE_PORT: u16 = 0x3f8;
/// Doorbell and wait.
pub const DOORBELL_PORT: u16 = 0x600;
/// Powers the machine off; the value is the exit code.
pub const POWER_PORT: u16 = 0x604;
/// Written only by the exception stubs.
pub const CRASH_PORT: u16 = 0x608;
/// Address register of PCI configuration mechanism 1.
pub const PCI_ADDRESS_PORT: u16 = 0xcf8;
/// Data register of PCI configuration mechanism 1.
pub const PCI_DATA_PORT: u16 = 0xcfc;

/// Where RAM ends below the devices' windows; what there is more of it continues at [`HIGH_MEMORY`].
pub const LOW_MEMORY_END: u64 = 0xC000_0000;
/// Where RAM continues beyond [`LOW_MEMORY_END`].
pub const HIGH_MEMORY: u64 = 1 << 32;

/// Start of the window for PCI memory BARs.
pub const PCI_WINDOW_BASE: u64 = 0xE000_0000;
/// Size of the window for PCI memory BARs, bytes.
pub const PCI_WINDOW_SIZE: u64 = 0x10_0000;

/// Root of the page tables (PML4).
pub const PML4: u64 = 0x1000;
/// Page directory pointer table.
pub const PDPT: u64 = 0x2000;
/// Four page directories, one for each GiB below 4 GiB.
pub const PD: u64 = 0x3000;
/// Page table of the first 2 MiB.
pub const PT: u64 = 0x7000;
/// Global descriptor table.
pub const GDT: u64 = 0x8000;
/// Interrupt descriptor table: 256 gates of 16 bytes.
pub const IDT: u64 = 0x9000;
/// Task state segment with the I/O permission bitmap behind it: three pages and a byte.
pub const TSS: u64 = 0xA000;
/// Exception stubs.
pub const STUBS: u64 = 0xE000;
/// The ring-0 stack of the exception stubs grows down from here.
pub const RING0_STACK_TOP: u64 = 0x2_0000;
/// Page directories, one for each GiB of RAM from [`HIGH_MEMORY`] on.
pub const PD_HIGH: u64 = 0x2_0000;
/// End of the range that only ring 0 may touch.
pub const SUPERVISOR_END: u64 = 0x10_0000;

/// The control page.
pub const CONTROL: u64 = 0x10_0000;
/// First address a segment of the guest may have.
pub const IMAGE_BASE: u64 = 0x20_0000;
/// Lowest distance between the end of the image and the end of RAM, bytes: heap and stack.
pub const HEADROOM_MIN: u64 = 1 << 20;

/// `magic` of the control page.
pub const CONTROL_MAGIC: u64 = 0x524f_5349_564f_4843;
/// `version` of the control page.
pub const CONTROL_VERSION: u32 = 1;
/// Longest argument string, bytes.
pub const ARGUMENTS_MAX: usize = 2048;

const _: () = assert!(PD_HIGH + (MEMORY_MAX - LOW_MEMORY_END).div_ceil(1 << 30) * 0x1000 <= SUPERVISOR_END);

/// Offsets in the control page.
pub mod control {
    /// `magic: u64`.
    pub const MAGIC: u64 = 0;
    /// `version: u32`.
    pub const VERSION: u64 = 8;
    /// `arguments_length: u32`.
    pub const ARGUMENTS_LENGTH: u64 = 12;
    /// `memory_size: u64`.
    pub const MEMORY_SIZE: u64 = 16;
    /// `image_end: u64`.
    pub const IMAGE_END: u64 = 24;
    /// `deadline: u64`.
    pub const DEADLINE: u64 = 32;
    /// `clock: u64`.
    pub const CLOCK: u64 = 40;
    /// `wall: u64`.
    pub const WALL: u64 = 48;
    /// `seed: [u8; 32]`.
    pub const SEED: u64 = 56;
    /// Bytes of the seed.
    pub const SEED_LENGTH: usize = 32;
    /// `arguments: [u8; 2048]`.
    pub const ARGUMENTS: u64 = 1024;
}
