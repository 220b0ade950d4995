//! Frames that the guest sends (virtio 1.2, 5.1.6.2).

use echovisor_event::Effect;
use virtio_queue::QueueT as _;
use vm_memory::{Bytes as _, Permissions};

use super::{
    super::{super::Context, chain, fault::Fault, transport::QUEUE_SIZE_MAX},
    FRAME_MIN, HEADER_LENGTH, Net, TRANSMIT,
};

impl Net {
    /// Sends every frame that the guest has made available.
    pub(super) fn transmit(&mut self, context: &mut Context<'_>) {
        // An honest guest has at most a ring of frames under way; one that lets the device's own writes fall on the
        // available ring must not keep it busy for longer.
        for sent in 0..QUEUE_SIZE_MAX {
            match self.transmit_one(context) {
                Ok(true) if sent == 0 => self.transport.signal_queue(),
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => {
                    self.transport.fail(fault);
                    break;
                }
            }
        }
    }

    /// Sends the next frame, if there is one.
    fn transmit_one(&mut self, context: &mut Context<'_>) -> Result<bool, Fault> {
        let memory = context.memory.mmap();
        let Some(queue) = self.transport.queue_mut(TRANSMIT) else {
            return Ok(false);
        };
        let Some(chain) = chain::pop(queue, memory, Permissions::Read, &mut self.buffers)? else {
            return Ok(false);
        };
        let length = chain.length as usize;
        if !(HEADER_LENGTH + FRAME_MIN..=self.packet.len()).contains(&length) {
            chain::unpop(queue);
            return Err(Fault::FrameLength { length: chain.length });
        }
        let mut filled = 0;
        for buffer in &self.buffers {
            let part = &mut self.packet[filled..filled + buffer.length];
            memory.read_slice(part, buffer.address).expect("the buffer lies in RAM");
            filled += buffer.length;
        }
        // The header says nothing: no offload was negotiated, and a device ignores flags that it does not know.
        (context.effects)(Effect::Frame(&self.packet[HEADER_LENGTH..length]));
        queue.add_used(memory, chain.head, 0).expect("the ring lies in RAM");
        Ok(true)
    }
}
