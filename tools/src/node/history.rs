//! A recording as the history of a replay.

use std::{
    io::{Write, stdout},
    time::Instant,
};

use echovisor_event::{Effect, Position};
use echovisor_log::{
    Batch,
    store::{Damage, Recording, SegmentReader, StoreError},
};
use echovisor_machine::Effects;
use echovisor_replayer::{Arrived, History, Witness};

/// The batches of a recording, from a segment on.
pub struct Batches {
    recording: Recording,
    /// Numbers of the segments that are still to be read, the next one last.
    segments: Vec<u64>,
    reader: Option<SegmentReader>,
    spare: Option<Batch>,
}

/// Why a recording cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A segment is damaged in the middle.
    #[error(transparent)]
    Damage(#[from] Box<Damage>),
    /// A segment cannot be read at all.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Batches {
    /// Reads `recording` from segment `first` on.
    #[must_use]
    pub fn new(recording: Recording, first: u64) -> Batches {
        let numbers = recording.segments().iter().map(|segment| segment.start.segment);
        let segments = numbers.rev().take_while(|number| *number >= first).collect();
        Batches { segments, recording, reader: None, spare: None }
    }
}

impl History for Batches {
    type Error = ReadError;

    fn next(&mut self) -> Result<Option<Arrived>, ReadError> {
        let mut batch = self.spare.take().unwrap_or_default();
        loop {
            if let Some(reader) = &mut self.reader
                && let Some(head) = reader.next(&mut batch)?
            {
                return Ok(Some(Arrived { batch, mark: head.mark, at: Instant::now() }));
            }
            let Some(number) = self.segments.pop() else { return Ok(None) };
            self.reader = Some(self.recording.read(number)?);
        }
    }

    fn recycle(&mut self, batch: Batch) {
        self.spare = Some(batch);
    }
}

/// Shows what the replayed guest writes on its console; its frames go nowhere.
pub struct Console {
    /// Whether anybody wants to see it.
    pub shown: bool,
}

impl Effects for Console {
    fn effect(&mut self, _: Position, effect: Effect<'_>) {
        if let Effect::Console(bytes) = effect
            && self.shown
        {
            // A reader that has had enough is no reason to stop.
            let _ = stdout().lock().write_all(bytes);
        }
    }
}

impl Witness for Console {
    fn released(&mut self, _: Position) {}
}
