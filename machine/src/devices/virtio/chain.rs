//! Taking what a driver has made available.
//!
//! The ring is [`virtio_queue`]'s, the walk along a chain is not: its own ends silently where a chain is broken, and
//! follows indirect tables that were never offered, where a device has to name the fault and stop.

use virtio_queue::{Error, Queue, QueueOwnedT as _, QueueT as _, desc::split::Descriptor};
use vm_memory::{Bytes as _, GuestAddress, GuestMemory, Permissions};

use super::fault::Fault;

/// Size of a descriptor, bytes (virtio 1.2, 2.7.5).
const DESCRIPTOR_SIZE: u64 = size_of::<Descriptor>() as u64;

/// One buffer of a chain. It lies in RAM and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) address: GuestAddress,
    pub(super) length: usize,
}

/// A chain without its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Its first descriptor, by which it is given back.
    pub(super) head: u16,
    /// Length of all its buffers, bytes.
    pub(super) length: u64,
}

/// How many chains the driver has made available, if the ring makes sense.
pub(super) fn available<M: GuestMemory>(queue: &Queue, memory: &M) -> Result<u16, Fault> {
    let index =
        queue.avail_idx(memory, std::sync::atomic::Ordering::Acquire).map_err(|_| Fault::AvailableIndex)?;
    let count = index.0.wrapping_sub(queue.next_avail());
    if count > queue.size() { Err(Fault::AvailableIndex) } else { Ok(count) }
}

/// Takes the next chain, whose buffers must all be for `access` by the device, and fills `buffers` with them. `None` if
/// the driver has made none available. After a fault the chain still stands in the ring.
pub(super) fn pop<M: GuestMemory>(
    queue: &mut Queue,
    memory: &M,
    access: Permissions,
    buffers: &mut Vec<Buffer>,
) -> Result<Option<Chain>, Fault> {
    let next = match queue.iter(memory) {
        Ok(mut chains) => chains.next(),
        Err(Error::QueueNotReady) => None,
        Err(_) => return Err(Fault::AvailableIndex),
    };
    let Some(head) = next.map(|chain| chain.head_index()) else {
        return Ok(None);
    };
    match walk(queue, memory, head, access, buffers) {
        Ok(length) => Ok(Some(Chain { head, length })),
        Err(fault) => {
            unpop(queue);
            Err(fault)
        }
    }
}

/// Puts the chain that was taken last back into the ring.
pub(super) fn unpop(queue: &mut Queue) {
    queue.go_to_previous_position();
}

/// Follows a chain (virtio 1.2, 2.7.5) and sums up the length of its buffers.
fn walk<M: GuestMemory>(
    queue: &Queue,
    memory: &M,
    head: u16,
    access: Permissions,
    buffers: &mut Vec<Buffer>,
) -> Result<u64, Fault> {
    buffers.clear();
    let mut total = 0;
    let mut index = head;
    for _ in 0..queue.size() {
        if index >= queue.size() {
            return Err(Fault::DescriptorIndex { index });
        }
        let at = GuestAddress(queue.desc_table() + DESCRIPTOR_SIZE * u64::from(index));
        // The table was found in RAM when the queue was enabled.
        let descriptor: Descriptor = memory.read_obj(at).map_err(|_| Fault::DescriptorIndex { index })?;
        if descriptor.refers_to_indirect_table() {
            return Err(Fault::Indirect { index });
        }
        if descriptor.is_write_only() != access.has_write() {
            return Err(Fault::Direction { index });
        }
        if descriptor.len() == 0 {
            return Err(Fault::EmptyBuffer { index });
        }
        let buffer = Buffer { address: descriptor.addr(), length: descriptor.len() as usize };
        if !memory.check_range(buffer.address, buffer.length, access) {
            let (address, length) = (descriptor.addr().0, descriptor.len());
            return Err(Fault::BufferOutsideMemory { index, address, length });
        }
        total += u64::from(descriptor.len());
        buffers.push(buffer);
        if !descriptor.has_next() {
            return Ok(total);
        }
        index = descriptor.next();
    }
    Err(Fault::EndlessChain { head })
}
