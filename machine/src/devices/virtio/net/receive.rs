//! Frames that the guest receives (virtio 1.2, 5.1.6.3 and 5.1.6.4).

use echovisor_event::limits::FRAME_MAX;
use virtio_queue::QueueT as _;
use vm_memory::{Bytes as _, Permissions};

use super::{
    super::{super::error::DeliveryError, chain, fault::Fault},
    FRAME_MIN, HEADER_LENGTH, Net, RECEIVE,
};
use crate::memory::Memory;

/// `struct virtio_net_hdr` before a received frame: no offloads, `num_buffers` (the last field) is 1.
const HEADER: [u8; HEADER_LENGTH] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

impl Net {
    /// How many frames the guest has made buffers available for.
    pub(in crate::devices) fn frames_wanted(&self, memory: &Memory) -> usize {
        let queue = self.transport.queue(RECEIVE);
        queue.map_or(0, |queue| chain::available(queue, memory.mmap()).unwrap_or(0).into())
    }

    /// Notices an available ring that makes no sense, for which [`frames_wanted`](Net::frames_wanted) only says zero.
    pub(super) fn check_receive(&mut self, memory: &Memory) {
        if let Some(queue) = self.transport.queue(RECEIVE)
            && let Err(fault) = chain::available(queue, memory.mmap())
        {
            self.transport.fail(fault);
        }
    }

    /// Puts a frame into the next buffers. It is lost if they are too small, or if the guest offers what is none.
    pub(in crate::devices) fn receive(&mut self, frame: &[u8], memory: &Memory) -> Result<(), DeliveryError> {
        if frame.len() > FRAME_MAX {
            return Err(DeliveryError::FrameTooLong { length: frame.len() });
        }
        match self.receive_one(frame, memory) {
            Ok(true) => Ok(()),
            // A ring that makes no sense has no buffers either; the next doorbell deals with it.
            Ok(false) | Err(Fault::AvailableIndex) => Err(DeliveryError::FrameUnwanted),
            Err(fault) => {
                self.transport.fail(fault);
                Ok(())
            }
        }
    }

    /// Whether there was a chain for the frame.
    fn receive_one(&mut self, frame: &[u8], memory: &Memory) -> Result<bool, Fault> {
        let memory = memory.mmap();
        let Some(queue) = self.transport.queue_mut(RECEIVE) else {
            return Ok(false);
        };
        let Some(chain) = chain::pop(queue, memory, Permissions::Write, &mut self.buffers)? else {
            return Ok(false);
        };
        let length = HEADER_LENGTH + frame.len();
        if chain.length < length as u64 {
            chain::unpop(queue);
            let useless = chain.length < (HEADER_LENGTH + FRAME_MIN) as u64;
            return if useless { Err(Fault::FrameLength { length: chain.length }) } else { Ok(true) };
        }
        let mut header = HEADER.as_slice();
        let mut frame = frame;
        for buffer in &self.buffers {
            let mut address = buffer.address;
            let mut room = buffer.length;
            for rest in [&mut header, &mut frame] {
                let (part, later) = rest.split_at(rest.len().min(room));
                memory.write_slice(part, address).expect("the buffer lies in RAM");
                address.0 += part.len() as u64;
                room -= part.len();
                *rest = later;
            }
            if frame.is_empty() {
                break;
            }
        }
        queue.add_used(memory, chain.head, length as u32).expect("the ring lies in RAM");
        self.transport.signal_queue();
        Ok(true)
    }
}
