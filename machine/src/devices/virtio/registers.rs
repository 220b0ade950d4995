//! The common configuration structure (virtio 1.2, 4.1.4.3).
//!
//! A driver accesses each register in its own width, 64-bit registers also by halves (4.1.3.1). Anything else reads as
//! zero and is ignored when written.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_queue::{Queue, QueueT as _};
use vm_memory::GuestMemory;

use super::{fault::Fault, transport::Transport};

/// Length of the structure, bytes.
pub(super) const LENGTH: u32 = 0x38;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DESC_HIGH: u64 = 0x24;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DRIVER_HIGH: u64 = 0x2c;
const QUEUE_DEVICE: u64 = 0x30;
const QUEUE_DEVICE_HIGH: u64 = 0x34;

/// There is no MSI-X.
const NO_VECTOR: u64 = 0xffff;

/// `DEVICE_STATUS` (2.1): the driver has seen the device.
pub(super) const ACKNOWLEDGE: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
/// The driver knows how to drive it.
pub(super) const DRIVER: u8 = VIRTIO_CONFIG_S_DRIVER as u8;
/// Both agree on the features.
pub(super) const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
/// The device may work.
pub(super) const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
/// The device has met a [`Fault`].
pub(super) const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;
/// The driver has given up.
pub(super) const FAILED: u8 = VIRTIO_CONFIG_S_FAILED as u8;

/// The step that each bit needs to have been taken before it (3.1.1).
const STEPS: [(u8, u8); 3] = [(DRIVER, ACKNOWLEDGE), (FEATURES_OK, DRIVER), (DRIVER_OK, FEATURES_OK)];

impl Transport {
    /// Reads `width` bytes of the common configuration structure.
    pub(super) fn read_register(&self, offset: u64, width: usize) -> u64 {
        let registers = &self.registers;
        match (offset, width) {
            (DEVICE_FEATURE_SELECT, 4) => registers.device_feature_select.into(),
            (DEVICE_FEATURE, 4) => half(self.offered, registers.device_feature_select),
            (DRIVER_FEATURE_SELECT, 4) => registers.driver_feature_select.into(),
            (DRIVER_FEATURE, 4) => half(registers.driver_features, registers.driver_feature_select),
            (CONFIG_MSIX_VECTOR | QUEUE_MSIX_VECTOR, 2) => NO_VECTOR,
            (NUM_QUEUES, 2) => self.queues.len() as u64,
            (DEVICE_STATUS, 1) => registers.status.into(),
            // The device's configuration never changes.
            (CONFIG_GENERATION, 1) => 0,
            (QUEUE_SELECT, 2) => registers.queue_select.into(),
            (QUEUE_NOTIFY_OFF, 2) => registers.queue_select.into(),
            // A queue that does not exist has size 0.
            _ => self.selected().map_or(0, |queue| read_queue(queue, offset, width)),
        }
    }

    /// Writes `width` bytes of the common configuration structure.
    pub(super) fn write_register<M: GuestMemory>(
        &mut self,
        offset: u64,
        width: usize,
        value: u64,
        memory: &M,
    ) {
        match (offset, width) {
            (DEVICE_FEATURE_SELECT, 4) => self.registers.device_feature_select = value as u32,
            (DRIVER_FEATURE_SELECT, 4) => self.registers.driver_feature_select = value as u32,
            (DRIVER_FEATURE, 4) => self.write_features(value as u32),
            (DEVICE_STATUS, 1) => self.write_status(value as u8),
            (QUEUE_SELECT, 2) => self.registers.queue_select = value as u16,
            (QUEUE_ENABLE, 2) if value == 1 => self.enable_queue(memory),
            _ => {
                // What is in use cannot be changed (4.1.4.3.2).
                if let Some(queue) = self.selected_mut().filter(|queue| !queue.ready()) {
                    write_queue(queue, offset, width, value);
                }
            }
        }
    }

    fn write_features(&mut self, value: u32) {
        let registers = &mut self.registers;
        // Once agreed on, features stay (2.2).
        if registers.status & FEATURES_OK == 0 {
            let features = registers.driver_features;
            match registers.driver_feature_select {
                0 => registers.driver_features = features & !0xffff_ffff | u64::from(value),
                1 => registers.driver_features = features & 0xffff_ffff | u64::from(value) << 32,
                _ => {}
            }
        }
    }

    /// The driver takes a step of the initialisation (3.1.1), gives up, or resets the device by writing 0 (2.4). A step
    /// that is not possible is not taken: the driver sees that when it reads the status back.
    fn write_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        let mut status = self.registers.status | value & (ACKNOWLEDGE | FAILED);
        for (step, before) in STEPS {
            let possible = status & before != 0 && (step != FEATURES_OK || self.features_acceptable());
            if value & step != 0 && possible {
                status |= step;
            }
        }
        self.registers.status = status;
    }

    /// Whether the driver wants what the device offers, and no less than virtio 1.0 (6.1).
    pub(super) fn features_acceptable(&self) -> bool {
        let features = self.registers.driver_features;
        features & !self.offered == 0 && features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn enable_queue<M: GuestMemory>(&mut self, memory: &M) {
        let Some(queue) = self.selected_mut().filter(|queue| !queue.ready()) else {
            return;
        };
        queue.set_ready(true);
        // From here on a kick is never needed: the doorbell serves all queues (docs/guest-abi.md).
        if !lies_in(queue, memory) || queue.disable_notification(memory).is_err() {
            queue.set_ready(false);
            let queue = self.registers.queue_select;
            self.fail(Fault::RingsOutsideMemory { queue });
        }
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::from(self.registers.queue_select))
    }

    fn selected_mut(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.registers.queue_select))
    }
}

/// Whether a queue that is ready has its rings in RAM. Address 0 is where they were after a reset: not set.
pub(super) fn lies_in<M: GuestMemory>(queue: &Queue, memory: &M) -> bool {
    let set = queue.desc_table() != 0 && queue.avail_ring() != 0 && queue.used_ring() != 0;
    set && queue.is_valid(memory)
}

fn read_queue(queue: &Queue, offset: u64, width: usize) -> u64 {
    match (offset, width) {
        (QUEUE_SIZE, 2) => queue.size().into(),
        (QUEUE_ENABLE, 2) => queue.ready().into(),
        (QUEUE_DESC, 4 | 8) => queue.desc_table(),
        (QUEUE_DESC_HIGH, 4) => queue.desc_table() >> 32,
        (QUEUE_DRIVER, 4 | 8) => queue.avail_ring(),
        (QUEUE_DRIVER_HIGH, 4) => queue.avail_ring() >> 32,
        (QUEUE_DEVICE, 4 | 8) => queue.used_ring(),
        (QUEUE_DEVICE_HIGH, 4) => queue.used_ring() >> 32,
        _ => 0,
    }
}

/// Sizes that are no power of two or too large, and addresses that are not aligned, are not taken.
fn write_queue(queue: &mut Queue, offset: u64, width: usize, value: u64) {
    let low = Some(value as u32);
    let high = (width == 8).then_some((value >> 32) as u32);
    match (offset, width) {
        (QUEUE_SIZE, 2) => queue.set_size(value as u16),
        (QUEUE_DESC, 4 | 8) => queue.set_desc_table_address(low, high),
        (QUEUE_DESC_HIGH, 4) => queue.set_desc_table_address(None, low),
        (QUEUE_DRIVER, 4 | 8) => queue.set_avail_ring_address(low, high),
        (QUEUE_DRIVER_HIGH, 4) => queue.set_avail_ring_address(None, low),
        (QUEUE_DEVICE, 4 | 8) => queue.set_used_ring_address(low, high),
        (QUEUE_DEVICE_HIGH, 4) => queue.set_used_ring_address(None, low),
        _ => {}
    }
}

/// The 32 feature bits that `select` names.
fn half(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}
