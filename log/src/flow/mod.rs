//! Frames, coded against the frame before them in the same flow.
//!
//! The headers of a TCP connection say nearly the same in every frame: addresses and ports stay, sequence numbers go on
//! where the last frame ended, checksums follow from the rest. A client's requests are like each other, too. Of such a frame only its
//! flow, what is not as expected, and what is new in its data are kept. Every other frame stands as it is. Both sides keep the same
//! table of flows, because both learn from the same frames.

mod repeat;
mod tcp;

use echovisor_event::limits::FRAME_MAX;
use foldhash::HashMap;

use crate::{
    columns::{Columns, Problem, Reader},
    varint,
};
use repeat::Repeat;
use tcp::{Changes, Flow, Key, Segment};

/// Flows that are remembered; the oldest makes room. A server's connections should fit: one that does not costs what its
/// frames cost uncoded.
const FLOWS_MAX: usize = 1024;

/// What is expected of the next frame of each flow.
#[derive(Default)]
pub(crate) struct FlowTable {
    flows: Vec<Flow>,
    slots: HashMap<Key, usize>,
    /// The slot that is given away next.
    oldest: usize,
}

impl FlowTable {
    /// Appends `frame` to the columns.
    pub(crate) fn split(&mut self, frame: &[u8], columns: &mut Columns) {
        let Some(segment) = Segment::parse(frame) else {
            return put_whole(frame, columns);
        };
        let slot = self.slots.get(&segment.key()).copied();
        if let Some(slot) = slot
            && let Some(changes) = self.flows[slot].changes(&segment)
        {
            let (flow, data) = (&mut self.flows[slot], segment.data());
            varint::put(&mut columns.flows, slot as u64 + 1);
            varint::put(&mut columns.lengths, data.len() as u64);
            changes.put(&mut columns.headers);
            columns.payload.extend_from_slice(Repeat::put(flow.kept(), data, &mut columns.repeats));
            flow.follow(frame);
            return;
        }
        put_whole(frame, columns);
        self.learn(&segment, slot);
    }

    /// Takes the next frame from the columns and appends it to `out`.
    pub(crate) fn join(&mut self, columns: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Problem> {
        let Some(slot) = columns.flows.number()?.checked_sub(1) else {
            let len = columns.lengths.length(FRAME_MAX)?;
            let frame = columns.payload.bytes(len)?;
            out.extend_from_slice(frame);
            if let Some(segment) = Segment::parse(frame) {
                let slot = self.slots.get(&segment.key()).copied();
                self.learn(&segment, slot);
            }
            return Ok(());
        };
        let flow = usize::try_from(slot).ok().and_then(|slot| self.flows.get_mut(slot));
        let flow = flow.ok_or(Problem("flows", "no such flow"))?;
        let len = columns.lengths.length(FRAME_MAX - flow.headers().len())?;
        let changes = Changes::take(&mut columns.headers)?;
        let repeat = Repeat::take(&mut columns.repeats, flow.kept(), len)?;
        let start = out.len();
        out.extend_from_slice(flow.headers());
        repeat.join(flow.kept(), columns.payload.bytes(repeat.new_of(len))?, out);
        flow.apply(&changes, &mut out[start..]);
        flow.follow(&out[start..]);
        Ok(())
    }

    /// Remembers a frame that stands as it is.
    fn learn(&mut self, segment: &Segment<'_>, slot: Option<usize>) {
        let new = Flow::new(segment);
        match slot {
            Some(slot) => self.flows[slot] = new,
            None => {
                let slot = self.oldest;
                self.oldest = (slot + 1) % FLOWS_MAX;
                self.slots.insert(new.key(), slot);
                match self.flows.get_mut(slot) {
                    Some(flow) => {
                        self.slots.remove(&std::mem::replace(flow, new).key());
                    }
                    None => self.flows.push(new),
                }
            }
        }
    }
}

fn put_whole(frame: &[u8], columns: &mut Columns) {
    columns.flows.push(0);
    varint::put(&mut columns.lengths, frame.len() as u64);
    columns.payload.extend_from_slice(frame);
}

#[cfg(test)]
pub(crate) use tcp::tcp_frame;

#[cfg(test)]
mod tests;
