//! A recording that is written.

use std::{
    fmt,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use echovisor_event::{Digest, Position, Term};

use super::{
    contents::{self, Contents},
    error::StoreError,
    files,
    header::Header,
    index::{Checkpoint, Index, Segment},
    layout::{Access, Layout, Lock},
    reader::{SegmentReader, checkpoints_of},
    segment::{self, FileHeader, Trailer},
};
use crate::{Head, SegmentStart};

/// A recording that is open for writing, by one process at a time.
///
/// What was appended is durable once [`Store::flush`] has returned, not before.
pub struct Store {
    layout: Layout,
    header: Header,
    index: Index,
    /// The segments so far; the last one is `open`'s, if there is one.
    segments: Vec<Segment>,
    open: Option<Open>,
    term: Option<Term>,
    _lock: Lock,
}

/// The segment that is being written.
struct Open {
    path: PathBuf,
    file: File,
    /// Length of the file up to the last whole record, bytes.
    len: u64,
    /// Checkpoints that the index does not have yet.
    checkpoints: Vec<Checkpoint>,
    record: Vec<u8>,
    broken: bool,
}

/// A folder in which a recording can be made, of whatever guest it will be; nobody else can have it meanwhile.
pub struct Reserved {
    layout: Layout,
    index: Index,
    lock: Lock,
}

impl Reserved {
    /// Makes the recording.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn create(self, header: &Header) -> Result<Store, StoreError> {
        let Reserved { layout, index, lock } = self;
        // A recording exists as soon as it has a header.
        header.write(&layout.header())?;
        let header = header.clone();
        Ok(Store { layout, header, index, segments: Vec::new(), open: None, term: None, _lock: lock })
    }

    /// Where snapshots will be kept.
    #[must_use]
    pub fn snapshots_dir(&self) -> PathBuf {
        self.layout.snapshots()
    }
}

impl Store {
    /// Makes a new recording in `dir`, which must be empty or not exist.
    ///
    /// # Errors
    ///
    /// [`StoreError`], [`StoreError::Exists`] among them.
    pub fn create(dir: &Path, header: &Header) -> Result<Store, StoreError> {
        Store::reserve(dir)?.create(header)
    }

    /// Makes all of a new recording but its header, by which it will exist.
    ///
    /// # Errors
    ///
    /// As [`Store::create`].
    pub fn reserve(dir: &Path) -> Result<Reserved, StoreError> {
        let layout = Layout { dir: dir.to_owned() };
        for dir in [dir, &layout.segments(), &layout.snapshots(), &layout.index()] {
            files::make_dir(dir).map_err(StoreError::io("making", dir))?;
        }
        let lock = layout.lock(Access::Write)?;
        if layout.header().exists() {
            return Err(StoreError::Exists { dir: dir.to_owned() });
        }
        let index = Index::open(&layout.index())?;
        index.flush()?;
        Ok(Reserved { layout, index, lock })
    }

    /// Opens a recording to continue it. A segment that a crash left open is cut behind its last whole batch and sealed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damage`] if the newest segment has lost what was durable; other [`StoreError`]s.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let layout = Layout { dir: dir.to_owned() };
        let header = layout.read_header()?;
        let lock = layout.lock(Access::Write)?;
        layout.remove_temporary()?;
        let index = Index::open(&layout.index())?;
        let mut contents = Contents::find(&layout, &header, &index)?;
        if let Some(last) = contents.segments.last_mut() {
            let number = last.start.segment;
            if let Some(place) = contents.damaged.iter().position(|damage| damage.segment >= number) {
                return Err(Box::new(contents.damaged.swap_remove(place)).into());
            }
            if !last.sealed {
                *last = seal_left(&layout, *last)?;
            }
        }
        for segment in
            contents.segments.iter().filter(|segment| contents.rescanned.contains(&segment.start.segment))
        {
            let number = segment.start.segment;
            let checkpoints = contents.checkpoints.iter().filter(|checkpoint| checkpoint.segment == number);
            index.replace(segment, &checkpoints.copied().collect::<Vec<_>>())?;
        }
        index.flush()?;
        let (segments, term) = (contents.segments, contents.term);
        Ok(Store { layout, header, index, segments, open: None, term, _lock: lock })
    }

    /// Takes back a recording that has not begun, so that it can be created anew.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] if it has a segment; [`StoreError::Io`].
    pub fn take_back(self) -> Result<(), StoreError> {
        if !self.segments.is_empty() {
            return Err(StoreError::Exists { dir: self.layout.dir });
        }
        let header = self.layout.header();
        fs::remove_file(&header)
            .and_then(|()| files::sync_dir(&self.layout.dir))
            .map_err(StoreError::io("removing", &header))
    }

    /// Who is recorded.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where snapshots are kept.
    #[must_use]
    pub fn snapshots_dir(&self) -> PathBuf {
        self.layout.snapshots()
    }

    /// The segments so far, in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where the log goes on: the start of the next segment.
    #[must_use]
    pub fn next_start(&self, term: Term) -> SegmentStart {
        self.segments.last().map_or_else(|| SegmentStart::first(term), |segment| segment.following(term))
    }

    /// Where the log goes on when the guest comes back that another node has run meanwhile: behind a gap, at `position`.
    #[must_use]
    pub fn start_behind_gap(&self, term: Term, position: Position) -> SegmentStart {
        let next = self.next_start(term);
        let sequence = match self.segments.last() {
            Some(_) => next.sequence.saturating_add(1),
            None => next.sequence,
        };
        SegmentStart { sequence, position, chain: Digest::default(), ..next }
    }

    /// Begins a segment; the one before is sealed. Where another node ran the guest meanwhile it may leave a gap, and in a newer term
    /// even go back behind it: what was logged here last may have come to nobody.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfOrder`] if it goes back or does not continue the chain; other [`StoreError`]s.
    pub fn begin(&mut self, start: &SegmentStart) -> Result<(), StoreError> {
        self.check_start(start)?;
        self.seal()?;
        let path = self.layout.segment(start.segment);
        let bytes = FileHeader { vm: self.header.vm, start: *start }.to_bytes();
        let file = files::write_whole(&path, &bytes).map_err(StoreError::io("creating", &path))?;
        let len = bytes.len() as u64;
        self.open =
            Some(Open { path, file, len, checkpoints: Vec::new(), record: Vec::new(), broken: false });
        self.segments.push(Segment::begin(*start, len));
        self.term = self.term.max(Some(start.term));
        Ok(())
    }

    /// Appends a batch: its body as it was encoded or received, which holds these [digests](crate::Batch::digests).
    ///
    /// # Errors
    ///
    /// [`StoreError`]; after [`StoreError::DiskFull`] the batch may be appended again once there is space.
    pub fn append(
        &mut self,
        head: &Head,
        digests: impl IntoIterator<Item = (Position, Digest)>,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let (Some(open), Some(segment)) = (&mut self.open, self.segments.last_mut()) else {
            return Err(StoreError::NoSegment);
        };
        in_order("the batch's term", segment.start.term, head.term)?;
        in_order("the batch's number", segment.next_sequence, head.sequence)?;
        in_order("the batch's first position", segment.last, head.from)?;
        open.record.clear();
        segment::put_record(&mut open.record, body);
        open.append()?;
        let before = open.checkpoints.len();
        open.checkpoints.extend(checkpoints_of(digests, segment.start.segment));
        segment.checkpoints += (open.checkpoints.len() - before) as u64;
        segment.last = head.mark.watermark;
        segment.next_sequence = head.sequence.saturating_add(1);
        segment.chain = head.chain;
        Ok(())
    }

    /// Makes everything that was appended durable: the segment's file first, then the index, which so never tells of what
    /// is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what was appended may not be durable then, and nothing more is accepted for this segment.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if let (Some(open), Some(segment)) = (&mut self.open, self.segments.last_mut()) {
            open.sync()?;
            segment.bytes = open.len;
            self.index.put(segment, &open.checkpoints)?;
            open.checkpoints.clear();
        }
        self.index.flush()
    }

    /// Makes everything that was appended durable, as [`Store::flush`] does, but does not tell the index: rot that strikes the
    /// end of the segment before the next flush passes for the work of a crash.
    ///
    /// # Errors
    ///
    /// As [`Store::flush`].
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.open.as_mut().map_or(Ok(()), Open::sync)
    }

    /// Ends the open segment, durably: its trailer is written. Without this a recording is what a crash leaves.
    ///
    /// # Errors
    ///
    /// As [`Store::append`] and [`Store::flush`].
    pub fn seal(&mut self) -> Result<(), StoreError> {
        if let (Some(open), Some(segment)) = (&mut self.open, self.segments.last_mut()) {
            open.record.clear();
            segment::put_trailer(&mut open.record, &trailer(segment));
            open.append()?;
            segment.sealed = true;
            self.flush()?;
            self.open = None;
        }
        Ok(())
    }

    /// Remembers, durably, that this term exists.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`], [`StoreError::DiskFull`].
    pub fn see_term(&mut self, term: Term) -> Result<(), StoreError> {
        self.index.put_term(term)?;
        self.term = self.term.max(Some(term));
        self.index.flush()
    }

    /// The newest term that the recording knows of.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// Reads a segment, also the open one, as far as it is written now.
    ///
    /// # Errors
    ///
    /// As [`Recording::read`](super::Recording::read).
    pub fn read(&self, segment: u64) -> Result<SegmentReader, StoreError> {
        contents::open_segment(&self.layout, &self.header, &self.segments, segment)
    }

    fn check_start(&self, start: &SegmentStart) -> Result<(), StoreError> {
        let Some(last) = self.segments.last() else {
            return Ok(());
        };
        let next = last.following(start.term);
        let at_least = |what, expected: u64, found: u64| in_order(what, expected, found.min(expected));
        at_least("the segment's term", last.start.term.0, start.term.0)?;
        at_least("the segment's number", next.segment, start.segment)?;
        at_least("the segment's first batch", next.sequence, start.sequence)?;
        if start.term == last.start.term || start.sequence == next.sequence {
            at_least("the segment's first position", next.position.0, start.position.0)?;
        }
        if start.sequence == next.sequence {
            in_order("the segment's first position", next.position, start.position)?;
            in_order("the segment's hash chain", next.chain, start.chain)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.layout.dir).finish_non_exhaustive()
    }
}

impl Open {
    /// Writes `record` behind the last whole record.
    fn append(&mut self) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Broken { file: self.path.clone() });
        }
        let written = self.file.write_all(&self.record);
        if let Err(error) = written {
            // Half a record must not stand before a whole one.
            let undone = self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
            self.broken = undone.is_err();
            return Err(StoreError::io("writing", &self.path)(error));
        }
        self.len += self.record.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Broken { file: self.path.clone() });
        }
        self.file.sync_data().map_err(|error| {
            // The kernel may have dropped what it could not write: trying again would report success without it.
            self.broken = true;
            StoreError::io("syncing", &self.path)(error)
        })
    }
}

/// Cuts a segment behind its last whole batch, and seals it.
fn seal_left(layout: &Layout, segment: Segment) -> Result<Segment, StoreError> {
    let path = layout.segment(segment.start.segment);
    let mut bytes = Vec::new();
    segment::put_trailer(&mut bytes, &trailer(&segment));
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).open(&path)?;
        file.set_len(segment.bytes)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(StoreError::io("sealing", &path))?;
    Ok(Segment { bytes: segment.bytes + bytes.len() as u64, sealed: true, ..segment })
}

fn trailer(segment: &Segment) -> Trailer {
    let Segment { next_sequence, last, chain, checkpoints, .. } = *segment;
    Trailer { sequence: next_sequence, position: last, chain, checkpoints }
}

fn in_order<T: PartialEq + ToString>(what: &'static str, expected: T, found: T) -> Result<(), StoreError> {
    if expected == found {
        Ok(())
    } else {
        Err(StoreError::OutOfOrder { what, expected: expected.to_string(), found: found.to_string() })
    }
}
