//! A recording as the history of a replay.

use std::{
    io::{Write, stdout},
    time::Instant,
};

use echovisor_event::{Effect, Position};
use echovisor_log::{
    Batch,
    link::Fingerprint,
    store::{Damage, Header, Recording, Segment, SegmentReader, Store, StoreError},
};
use echovisor_machine::{Effects, MachineConfig};
use echovisor_replayer::{Arrived, History, Witness};

use crate::failure::{Exit, Failure};

/// What has segments that can be read.
pub trait Segments {
    /// They, in order.
    fn list(&self) -> &[Segment];

    /// Reads one of them.
    ///
    /// # Errors
    /// If not even its beginning can be read.
    fn read(&self, number: u64) -> Result<SegmentReader, StoreError>;
}

impl Segments for Recording {
    fn list(&self) -> &[Segment] {
        self.segments()
    }

    fn read(&self, number: u64) -> Result<SegmentReader, StoreError> {
        Recording::read(self, number)
    }
}

/// A recording that will be continued.
impl Segments for &Store {
    fn list(&self) -> &[Segment] {
        self.segments()
    }

    fn read(&self, number: u64) -> Result<SegmentReader, StoreError> {
        Store::read(self, number)
    }
}

/// The batches of a recording, from a segment on.
pub struct Batches<S = Recording> {
    recording: S,
    /// The segments that are still to be read, the next one last.
    segments: Vec<Segment>,
    /// The segment that is being read.
    present: Option<Segment>,
    /// Behind this position nobody reads on.
    last: Position,
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
    /// The log goes on elsewhere.
    #[error(transparent)]
    Gap(#[from] Gap),
}

/// A part of the guest's history that a recording does not hold.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "what the guest did behind position {from} is not recorded here, up to position {to}: another node ran it in between"
)]
pub struct Gap {
    /// Where the log breaks off.
    pub from: Position,
    /// Where it goes on.
    pub to: Position,
}

impl Gap {
    /// The gap between two segments, if there is one.
    #[must_use]
    pub fn between(previous: &Segment, next: &Segment) -> Option<Gap> {
        (!next.follows(previous)).then_some(Gap { from: previous.last, to: next.start.position })
    }
}

impl<S: Segments> Batches<S> {
    /// Reads `recording` from segment `first` on.
    #[must_use]
    pub fn new(recording: S, first: u64) -> Batches<S> {
        let newest_first = recording.list().iter().rev().copied();
        let segments = newest_first.take_while(|segment| segment.start.segment >= first).collect();
        Batches { segments, present: None, last: Position(u64::MAX), recording, reader: None, spare: None }
    }

    /// For who needs nothing behind position `last`: the log ends at a gap there.
    #[must_use]
    pub fn up_to(self, last: Position) -> Batches<S> {
        Batches { last, ..self }
    }
}

impl<S: Segments> History for Batches<S> {
    type Error = ReadError;

    fn next(&mut self) -> Result<Option<Arrived>, ReadError> {
        let mut batch = self.spare.take().unwrap_or_default();
        loop {
            if let Some(reader) = &mut self.reader
                && let Some(head) = reader.next(&mut batch)?
            {
                return Ok(Some(Arrived { batch, mark: head.mark, at: Instant::now() }));
            }
            let Some(segment) = self.segments.pop() else { return Ok(None) };
            let gap = self.present.as_ref().and_then(|present| Gap::between(present, &segment));
            if let Some(gap) = gap {
                self.segments.clear();
                return if self.last <= gap.from { Ok(None) } else { Err(gap.into()) };
            }
            self.reader = Some(self.recording.read(segment.start.segment)?);
            self.present = Some(segment);
        }
    }

    fn recycle(&mut self, batch: Batch) {
        self.spare = Some(batch);
    }
}

/// The machine that a recording is of, which only a host like `here` can run.
///
/// # Errors
/// If it was recorded on another kind of host, or by another version.
pub fn machine_of(header: &Header, here: &Fingerprint) -> Result<MachineConfig, Failure> {
    let there = &header.fingerprint;
    if there.digest != here.digest {
        let what = format!("this was recorded on another kind of host: {}; here: {}", there.text, here.text);
        let hint = "use it on a host like the one that recorded it";
        return Err(Failure::new(what, hint).with_exit(Exit::Unfit));
    }
    MachineConfig::from_bytes(&header.machine).map_err(|error| {
        let hint = "it was made by another version";
        Failure::new("the recording's header", hint).because(error).with_exit(Exit::Corrupt)
    })
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
