//! Reads the batches of one segment from its file.

use std::path::{Path, PathBuf};

use echovisor_event::{Digest, Position, VmId};

use super::{
    error::{Damage, DamageKind},
    index::{Checkpoint, Segment},
    segment::{Found, RECORD_PREFIX, SegmentFile, Trailer},
};
use crate::{Batch, Decoder, Head, SegmentStart};

/// Reads one segment, from its beginning.
pub struct SegmentReader {
    path: PathBuf,
    file: SegmentFile,
    decoder: Decoder,
    /// What has been read, as the index would tell it.
    seen: Segment,
    end: End,
    torn: Option<Box<Damage>>,
    done: bool,
}

/// What may be at the end of a segment's file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The trailer and nothing else.
    Sealed,
    /// The trailer, or anything at all beyond the bytes that are known to be durable.
    Open {
        /// Bytes that are known to be durable.
        durable: u64,
    },
}

impl SegmentReader {
    pub(crate) fn open(path: &Path, vm: VmId, number: u64, end: End) -> Result<SegmentReader, Box<Damage>> {
        let damage = |kind| {
            Box::new(Damage {
                file: path.to_owned(),
                segment: number,
                offset: 0,
                kind,
                first: Position::BOOT,
                last: Position::BOOT,
                batches: 0,
            })
        };
        let file = SegmentFile::open(path).map_err(damage)?;
        let header = file.header();
        if header.vm != vm {
            return Err(damage(DamageKind::Foreign { expected: vm, found: header.vm }));
        }
        let start = header.start;
        if start.segment != number {
            return Err(damage(DamageKind::Header(format!("it is that of segment {}", start.segment))));
        }
        let seen = Segment::begin(start, file.offset());
        let decoder = Decoder::new(start);
        Ok(SegmentReader { path: path.to_owned(), file, decoder, seen, end, torn: None, done: false })
    }

    /// Where the segment begins.
    #[must_use]
    pub fn start(&self) -> &SegmentStart {
        &self.seen.start
    }

    /// Reads the next batch into `batch`, which is cleared first; `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`Damage`]: the rest of the segment is lost, and every later call returns `None`. What was read before is good.
    pub fn next(&mut self, batch: &mut Batch) -> Result<Option<Head>, Box<Damage>> {
        batch.clear();
        if self.done {
            return Ok(None);
        }
        match self.read(batch) {
            Ok(Some(head)) => Ok(Some(head)),
            Ok(None) => {
                self.done = true;
                Ok(None)
            }
            Err(kind) => {
                self.done = true;
                batch.clear();
                let damage = Box::new(self.damage(kind));
                match self.end {
                    End::Open { durable } if damage.offset >= durable => {
                        self.torn = Some(damage);
                        Ok(None)
                    }
                    _ => Err(damage),
                }
            }
        }
    }

    /// The bytes of the last batch, as they were received or sent.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.file.body()
    }

    /// Once the end is reached: what a crash left behind the last whole batch of a segment that was being written. It had not
    /// been made durable, so nothing that was promised is lost.
    #[must_use]
    pub fn torn(&self) -> Option<&Damage> {
        self.torn.as_deref()
    }

    /// Reads to the end, and returns what the index should say, with the damage that stopped the reading.
    pub(crate) fn scan(mut self) -> (Segment, Vec<Checkpoint>, Option<Box<Damage>>) {
        let mut batch = Batch::new();
        let mut checkpoints = Vec::new();
        loop {
            match self.next(&mut batch) {
                Ok(Some(_)) => checkpoints.extend(checkpoints_of(batch.digests(), self.seen.start.segment)),
                Ok(None) => return (self.seen, checkpoints, None),
                Err(damage) => return (self.seen, checkpoints, Some(damage)),
            }
        }
    }

    fn read(&mut self, batch: &mut Batch) -> Result<Option<Head>, DamageKind> {
        match self.file.next()? {
            Found::Batch => {
                let head = self.decoder.decode(self.file.body(), batch).map_err(DamageKind::Decode)?;
                self.seen.last = head.mark.watermark;
                self.seen.next_sequence = head.sequence.saturating_add(1);
                self.seen.chain = head.chain;
                self.seen.checkpoints += batch.digests().count() as u64;
                self.seen.bytes = self.file.offset();
                Ok(Some(head))
            }
            Found::End(trailer) => {
                self.check_end(trailer)?;
                self.seen.sealed = true;
                self.seen.bytes = self.file.offset();
                Ok(None)
            }
            Found::Open => match self.end {
                End::Open { durable } if self.file.offset() >= durable => Ok(None),
                End::Open { durable } => Err(DamageKind::Truncated { missing: durable - self.file.offset() }),
                End::Sealed => Err(DamageKind::Truncated { missing: RECORD_PREFIX as u64 }),
            },
        }
    }

    fn check_end(&mut self, trailer: Trailer) -> Result<(), DamageKind> {
        let Segment { next_sequence, last, chain, checkpoints, .. } = self.seen;
        if trailer != (Trailer { sequence: next_sequence, position: last, chain, checkpoints }) {
            return Err(DamageKind::End("sequence, position, hash chain or checkpoints differ"));
        }
        if self.file.is_at_end()? { Ok(()) } else { Err(DamageKind::End("bytes follow it")) }
    }

    fn damage(&self, kind: DamageKind) -> Damage {
        Damage {
            file: self.path.clone(),
            segment: self.seen.start.segment,
            offset: self.seen.bytes,
            kind,
            first: self.seen.start.position,
            last: self.seen.last,
            batches: self.seen.next_sequence - self.seen.start.sequence,
        }
    }
}

/// The checkpoints with these digests, which stand in this segment.
pub(super) fn checkpoints_of(
    digests: impl IntoIterator<Item = (Position, Digest)>,
    segment: u64,
) -> impl Iterator<Item = Checkpoint> {
    digests.into_iter().map(move |(position, digest)| Checkpoint { position, digest, segment })
}
