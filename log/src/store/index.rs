//! The index: what is in which segment, so that nobody has to read them all. Kept in sled, derived from the segments.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use echovisor_event::{Digest, Position, Term};
use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use super::error::StoreError;
use crate::SegmentStart;

/// What is known of one segment without reading it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub start: SegmentStart,
    /// The watermark of its last batch.
    pub last: Position,
    /// Number of the batch after its last.
    pub next_sequence: u64,
    /// The hash chain after its last batch.
    pub chain: Digest,
    /// How many digests of checkpoints it holds.
    pub checkpoints: u64,
    /// Length of its file, bytes: of an open segment what is known to be durable.
    pub bytes: u64,
    /// Whether it is complete: its trailer is written and nothing more will come.
    pub sealed: bool,
}

impl Segment {
    /// Whether it goes on where `previous` ends. Else the log has a gap between them: the guest ran elsewhere, or a segment is lost.
    #[must_use]
    pub fn follows(&self, previous: &Segment) -> bool {
        self.start.sequence == previous.next_sequence
    }

    /// A segment that has just begun; `bytes` are those of its file's header.
    pub(crate) fn begin(start: SegmentStart, bytes: u64) -> Segment {
        let SegmentStart { sequence, position, chain, .. } = start;
        Segment {
            start,
            last: position,
            next_sequence: sequence,
            chain,
            checkpoints: 0,
            bytes,
            sealed: false,
        }
    }

    /// The start of the segment that goes on where this one ends.
    #[must_use]
    pub fn following(&self, term: Term) -> SegmentStart {
        SegmentStart {
            segment: self.start.segment.saturating_add(1),
            term,
            sequence: self.next_sequence,
            position: self.last,
            chain: self.chain,
        }
    }
}

/// A position at which the state's digest is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where.
    pub position: Position,
    /// The state's digest.
    pub digest: Digest,
    /// In which segment the digest stands.
    pub segment: u64,
}

/// How long an index is waited for that sled says is open elsewhere. Our lock keeps out everybody but other readers, of whom sled admits one
/// at a time. And whoever closed it may be done while a thread of sled still holds sled's own lock.
const PATIENCE: Duration = Duration::from_secs(2);

/// The open index.
pub(crate) struct Index {
    path: PathBuf,
    db: sled::Db,
    segments: sled::Tree,
    checkpoints: sled::Tree,
    terms: sled::Tree,
}

impl Index {
    /// Opens it, or makes one. Waits for a while if it is in use.
    pub(crate) fn open(path: &Path) -> Result<Index, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Index::try_open(path) {
                Err(StoreError::InUse { .. }) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    fn try_open(path: &Path) -> Result<Index, StoreError> {
        let wrong = |source| index_error(path, source);
        // Nothing is to be durable by itself, only by `flush`.
        let config = sled::Config::new().path(path).cache_capacity(16 << 20).flush_every_ms(None);
        let db = config.open().map_err(wrong)?;
        let tree = |name| db.open_tree(name).map_err(wrong);
        let (segments, checkpoints, terms) = (tree("segments")?, tree("checkpoints")?, tree("terms")?);
        Ok(Index { path: path.to_owned(), db, segments, checkpoints, terms })
    }

    /// All segments by number. An entry that can't be read is left out: its segment is read instead.
    pub(crate) fn segments(&self) -> Result<BTreeMap<u64, Segment>, StoreError> {
        let mut found = BTreeMap::new();
        for item in &self.segments {
            let (key, value) = item.map_err(|source| self.wrong(source))?;
            let mut aligned: AlignedVec = AlignedVec::new();
            aligned.extend_from_slice(&value);
            if let (Some(number), Ok(segment)) =
                (number(&key), rkyv::from_bytes::<Segment, rancor::Error>(&aligned))
                && segment.start.segment == number
            {
                found.insert(number, segment);
            }
        }
        Ok(found)
    }

    /// All checkpoints by position. An entry that can't be read is left out: the count of its segment does not fit then.
    pub(crate) fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        let mut found = Vec::new();
        for item in &self.checkpoints {
            let (key, value) = item.map_err(|source| self.wrong(source))?;
            if let (Some(position), Some((digest, segment))) = (number(&key), value.split_first_chunk())
                && let Some(segment) = number(segment)
            {
                found.push(Checkpoint { position: Position(position), digest: Digest(*digest), segment });
            }
        }
        Ok(found)
    }

    /// Sets a segment's entry and adds checkpoints to it.
    pub(crate) fn put(&self, segment: &Segment, checkpoints: &[Checkpoint]) -> Result<(), StoreError> {
        for Checkpoint { position, digest, segment } in checkpoints {
            let value = [&digest.0[..], &segment.to_be_bytes()].concat();
            self.checkpoints.insert(position.0.to_be_bytes(), value).map_err(|source| self.wrong(source))?;
        }
        let value = rkyv::to_bytes::<rancor::Panic>(segment).expect("plain values serialize into memory");
        let key = segment.start.segment.to_be_bytes();
        self.segments.insert(key, &value[..]).map_err(|source| self.wrong(source))?;
        Ok(())
    }

    /// Replaces all that is known of a segment.
    pub(crate) fn replace(&self, segment: &Segment, checkpoints: &[Checkpoint]) -> Result<(), StoreError> {
        for checkpoint in self.checkpoints()? {
            if checkpoint.segment == segment.start.segment {
                let key = checkpoint.position.0.to_be_bytes();
                self.checkpoints.remove(key).map_err(|source| self.wrong(source))?;
            }
        }
        self.put(segment, checkpoints)
    }

    /// Remembers a term.
    pub(crate) fn put_term(&self, term: Term) -> Result<(), StoreError> {
        self.terms.insert(term.0.to_be_bytes(), &[]).map_err(|source| self.wrong(source))?;
        Ok(())
    }

    /// The newest remembered term.
    pub(crate) fn newest_term(&self) -> Result<Option<Term>, StoreError> {
        let last = self.terms.last().map_err(|source| self.wrong(source))?;
        Ok(last.and_then(|(key, _)| number(&key)).map(Term))
    }

    /// Makes all of it durable.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|source| self.wrong(source))?;
        Ok(())
    }

    fn wrong(&self, source: sled::Error) -> StoreError {
        match &source {
            sled::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                StoreError::DiskFull { file: self.path.clone() }
            }
            _ => StoreError::Index { file: self.path.clone(), source },
        }
    }
}

/// An error of sled, with the cases that have a remedy told apart.
fn index_error(path: &Path, source: sled::Error) -> StoreError {
    let file = path.to_owned();
    match source {
        sled::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => StoreError::DiskFull { file },
        // sled has no kind for this.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StoreError::InUse { dir: path.parent().unwrap_or(path).to_owned() }
        }
        source => StoreError::Index { file, source },
    }
}

/// A key or number as it stands in the index: big endian, so that keys sort by value.
fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
