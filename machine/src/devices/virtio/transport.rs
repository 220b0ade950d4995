//! Virtio over PCI, the modern way (virtio 1.2, 4.1), without MSI-X.
//!
//! All four structures lie in one memory BAR, each in a page of its own. The PCI configuration access capability
//! (4.1.4.9) is left out: it is for firmware that cannot map BARs, and this machine has none.

use virtio_queue::{Queue, QueueT as _};
use vm_memory::GuestMemory;

use super::{
    super::{
        bytes,
        pci::{ConfigSpace, Identity},
    },
    fault::Fault,
    registers::{self, DRIVER_OK, NEEDS_RESET},
    state::Registers,
};
use crate::boot::layout::{PCI_WINDOW_BASE, PCI_WINDOW_SIZE};

/// Most entries of a queue: four bursts, so that a guest can refill while one is on its way.
pub(super) const QUEUE_SIZE_MAX: u16 = 256;

/// Size of the BAR, bytes.
const BAR_SIZE: u32 = 4 * REGION_SIZE;
/// Size of what each structure has for itself, bytes.
const REGION_SIZE: u32 = 0x1000;
/// Common configuration, at the start of the BAR.
const COMMON: u32 = 0;
/// ISR status.
const ISR: u32 = 1;
/// Device-specific configuration.
const DEVICE: u32 = 2;
/// Notifications.
const NOTIFY: u32 = 3;
/// Distance between the notification addresses of two queues, bytes.
const NOTIFY_OFF_MULTIPLIER: u32 = 4;

/// PCI's number of vendor-specific capabilities.
const CAPABILITY_VENDOR: u8 = 0x09;
/// Length of `struct virtio_pci_cap`, bytes (4.1.4).
const CAPABILITY_LENGTH: u8 = 16;

/// `isr_status` (4.1.4.5): a queue has used buffers.
const ISR_QUEUE: u8 = 1;
/// `isr_status`: the configuration, or the status by [`NEEDS_RESET`], has changed.
const ISR_CONFIG: u8 = 2;
/// `isr_status`: the bits that exist. The interrupt line is active while any is set.
pub(super) const ISR_MASK: u8 = ISR_QUEUE | ISR_CONFIG;

/// What all virtio devices have in common: the PCI function, the registers and the queues.
pub(super) struct Transport {
    pub(super) config_space: ConfigSpace,
    /// The feature bits that the device offers.
    pub(super) offered: u64,
    pub(super) registers: Registers,
    pub(super) queues: Vec<Queue>,
}

impl Transport {
    /// A device of virtio's type `id` and PCI's class `class`, that offers `features`, has `config` bytes of
    /// device-specific configuration, and `queues` queues.
    pub(super) fn new(slot: u8, id: u16, class: u32, features: u64, config: u32, queues: u16) -> Transport {
        let base = PCI_WINDOW_BASE as u32 + u32::from(slot) * BAR_SIZE;
        assert!(
            u64::from(base + BAR_SIZE) <= PCI_WINDOW_BASE + PCI_WINDOW_SIZE,
            "the window has room for slot {slot}"
        );
        let multiplier = NOTIFY_OFF_MULTIPLIER;
        let config_space = ConfigSpace::new(&Identity {
            vendor: 0x1af4,
            // Modern devices have this offset and revision 1 (4.1.2.1).
            device: 0x1040 + id,
            revision: 1,
            class,
            subsystem_vendor: 0x1af4,
            subsystem: 0x0040 + id,
        })
        .with_memory_bar(base, BAR_SIZE)
        .with_interrupt_pin()
        .with_capability(CAPABILITY_VENDOR, &capability(1, COMMON, registers::LENGTH, &[]))
        .with_capability(
            CAPABILITY_VENDOR,
            &capability(2, NOTIFY, multiplier * u32::from(queues), &multiplier.to_le_bytes()),
        )
        .with_capability(CAPABILITY_VENDOR, &capability(3, ISR, 1, &[]))
        .with_capability(CAPABILITY_VENDOR, &capability(4, DEVICE, config, &[]));
        let queue = || Queue::new(QUEUE_SIZE_MAX).expect("the size is a power of two");
        Transport {
            config_space,
            offered: features,
            registers: Registers::default(),
            queues: std::iter::repeat_with(queue).take(queues.into()).collect(),
        }
    }

    /// Answers a read from the BAR; `config` is the device-specific configuration.
    pub(super) fn read(&mut self, address: u64, data: &mut [u8], config: &[u8]) {
        let Some((region, offset)) = self.target(address, data.len()) else {
            return;
        };
        data.fill(0);
        match region {
            COMMON => bytes::fill(data, self.read_register(offset, data.len())),
            ISR if offset == 0 => bytes::fill(data, std::mem::take(&mut self.registers.isr).into()),
            DEVICE => {
                let from = config.iter().skip(offset as usize);
                data.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
            _ => {}
        }
    }

    /// Takes a write to the BAR, and says which queue was kicked.
    pub(super) fn write<M: GuestMemory>(&mut self, address: u64, data: &[u8], memory: &M) -> Option<u16> {
        let (region, offset) = self.target(address, data.len())?;
        match region {
            COMMON => self.write_register(offset, data.len(), bytes::value(data), memory),
            NOTIFY => {
                let multiplier = u64::from(NOTIFY_OFF_MULTIPLIER);
                return offset.is_multiple_of(multiplier).then_some((offset / multiplier) as u16);
            }
            _ => {}
        }
        None
    }

    /// The structure in the BAR, and the offset in it, that an access means.
    fn target(&self, address: u64, length: usize) -> Option<(u32, u64)> {
        let offset = self.config_space.bar_offset(address, length)?;
        let size = u64::from(REGION_SIZE);
        Some(((offset / size) as u32, offset % size))
    }

    /// The queue, if the device may work on it.
    pub(super) fn queue(&self, index: u16) -> Option<&Queue> {
        self.queues.get(usize::from(index)).filter(|queue| self.operating() && queue.ready())
    }

    /// The queue, if the device may work on it.
    pub(super) fn queue_mut(&mut self, index: u16) -> Option<&mut Queue> {
        let operating = self.operating();
        self.queues.get_mut(usize::from(index)).filter(|queue| operating && queue.ready())
    }

    fn operating(&self) -> bool {
        self.registers.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    /// Tells the driver that it finds used buffers.
    pub(super) fn signal_queue(&mut self) {
        self.registers.isr |= ISR_QUEUE;
    }

    /// Stops the device until it is reset (2.1.2).
    pub(super) fn fail(&mut self, fault: Fault) {
        let registers = &mut self.registers;
        registers.fault.get_or_insert(fault);
        registers.status |= NEEDS_RESET;
        if registers.status & DRIVER_OK != 0 {
            registers.isr |= ISR_CONFIG;
        }
    }

    /// As after power-on, but for the PCI function.
    pub(super) fn reset(&mut self) {
        self.registers = Registers::default();
        self.queues.iter_mut().for_each(Queue::reset);
    }
}

/// The body of a `struct virtio_pci_cap` (4.1.4) for `length` bytes at the start of `region` of BAR 0.
fn capability(kind: u8, region: u32, length: u32, more: &[u8]) -> Vec<u8> {
    let mut body = vec![CAPABILITY_LENGTH + more.len() as u8, kind, 0, 0, 0, 0];
    body.extend((region * REGION_SIZE).to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(more);
    body
}
