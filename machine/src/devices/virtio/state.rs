//! The saved state of a virtio device.

use rkyv::{Archive, Deserialize, Serialize};
use virtio_queue::{Queue, QueueT as _};
use vm_memory::GuestMemory;

use super::{
    super::{error::DeviceStateError, pci::state::ConfigSpaceState},
    fault::Fault,
    registers::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET, lies_in},
    transport::{ISR_MASK, QUEUE_SIZE_MAX, Transport},
};

/// The state of a virtio device.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TransportState {
    /// The PCI function.
    pub config_space: ConfigSpaceState,
    /// The registers.
    pub registers: Registers,
    /// The queues.
    pub queues: Vec<QueueState>,
}

/// The registers of a virtio device; all zero after a reset.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Which half of the offered features is shown.
    pub device_feature_select: u32,
    /// Which half of the driver's features is shown.
    pub driver_feature_select: u32,
    /// The features that the driver wants.
    pub driver_features: u64,
    /// The device status.
    pub status: u8,
    /// Which queue is shown.
    pub queue_select: u16,
    /// The ISR status.
    pub isr: u8,
    /// Why the device needs a reset, if it does.
    pub fault: Option<Fault>,
}

/// One queue.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Its number of entries.
    pub size: u16,
    /// Whether it is in use.
    pub ready: bool,
    /// Address of the descriptor table.
    pub desc_table: u64,
    /// Address of the available ring.
    pub avail_ring: u64,
    /// Address of the used ring.
    pub used_ring: u64,
    /// Index of the available ring's next entry to be taken.
    pub next_avail: u16,
    /// Index of the used ring's next entry to be filled.
    pub next_used: u16,
}

impl From<&Queue> for QueueState {
    fn from(queue: &Queue) -> QueueState {
        QueueState {
            size: queue.size(),
            ready: queue.ready(),
            desc_table: queue.desc_table(),
            avail_ring: queue.avail_ring(),
            used_ring: queue.used_ring(),
            next_avail: queue.next_avail(),
            next_used: queue.next_used(),
        }
    }
}

impl TryFrom<&QueueState> for Queue {
    type Error = virtio_queue::Error;

    fn try_from(state: &QueueState) -> Result<Queue, virtio_queue::Error> {
        Queue::try_from(virtio_queue::QueueState {
            max_size: QUEUE_SIZE_MAX,
            next_avail: state.next_avail,
            next_used: state.next_used,
            event_idx_enabled: false,
            size: state.size,
            ready: state.ready,
            desc_table: state.desc_table,
            avail_ring: state.avail_ring,
            used_ring: state.used_ring,
        })
    }
}

impl Transport {
    pub(super) fn save(&self) -> TransportState {
        TransportState {
            config_space: self.config_space.save(),
            registers: self.registers.clone(),
            queues: self.queues.iter().map(QueueState::from).collect(),
        }
    }

    /// Takes over a saved state. On an error the device is in no defined state.
    pub(super) fn restore<M: GuestMemory>(
        &mut self,
        state: &TransportState,
        memory: &M,
    ) -> Result<(), DeviceStateError> {
        self.config_space.restore("net", &state.config_space)?;
        self.registers = state.registers.clone();
        self.check_registers()?;
        if state.queues.len() != self.queues.len() {
            return Err(DeviceStateError::QueueCount { count: state.queues.len() });
        }
        for (index, (queue, state)) in self.queues.iter_mut().zip(&state.queues).enumerate() {
            *queue =
                Queue::try_from(state).map_err(|source| DeviceStateError::Queue { queue: index, source })?;
            check_queue(queue, memory).map_err(|what| DeviceStateError::QueueUse { queue: index, what })?;
        }
        Ok(())
    }

    /// Pair to [`write_register`](Transport::write_register): what the registers never hold.
    fn check_registers(&self) -> Result<(), DeviceStateError> {
        let registers = &self.registers;
        let refuse = |register, value| Err(DeviceStateError::VirtioRegister { register, value });
        let status = registers.status;
        let known = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET | FAILED;
        let in_order = [(DRIVER, ACKNOWLEDGE), (FEATURES_OK, DRIVER), (DRIVER_OK, FEATURES_OK)]
            .iter()
            .all(|(step, before)| status & step == 0 || status & before != 0);
        let fault_told = registers.fault.is_some() == (status & NEEDS_RESET != 0);
        if status & !known != 0 || !in_order || !fault_told {
            return refuse("status", status.into());
        }
        if status & FEATURES_OK != 0 && !self.features_acceptable() {
            return refuse("driver_features", registers.driver_features);
        }
        if registers.isr & !ISR_MASK != 0 {
            return refuse("isr", registers.isr.into());
        }
        Ok(())
    }
}

fn check_queue<M: GuestMemory>(queue: &Queue, memory: &M) -> Result<(), &'static str> {
    if queue.ready() && !lies_in(queue, memory) {
        return Err("has rings outside RAM");
    }
    if !queue.ready() && (queue.next_avail(), queue.next_used()) != (0, 0) {
        return Err("was used but is not ready");
    }
    // No device keeps a buffer from one step to the next.
    if queue.next_avail() != queue.next_used() {
        return Err("has buffers that were taken but not given back");
    }
    Ok(())
}
