//! A recording that is read.

use std::path::{Path, PathBuf};

use echovisor_event::Term;

use super::{
    contents::{self, Contents},
    continuation::Writer,
    error::{Damage, StoreError},
    header::Header,
    index::{Checkpoint, Index, Segment},
    layout::{Access, Layout, Lock},
    reader::SegmentReader,
};

/// A recording that is open for reading. Several processes may read one at a time, while none writes it.
pub struct Recording {
    layout: Layout,
    contents: Contents,
    header: Header,
    _lock: Lock,
}

impl Recording {
    /// Opens a recording for reading.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. A damaged segment is no error: reading it is.
    pub fn open(dir: &Path) -> Result<Recording, StoreError> {
        let layout = Layout { dir: dir.to_owned() };
        let header = layout.read_header()?;
        let lock = layout.lock(Access::Read)?;
        let index = Index::open(&layout.index())?;
        let contents = Contents::find(&layout, &header, &index)?;
        Ok(Recording { layout, contents, header, _lock: lock })
    }

    /// Who is recorded.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The segments in order. Their numbers may have gaps, where a secondary was away for a while.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.contents.segments
    }

    /// The checkpoints in order.
    #[must_use]
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.contents.checkpoints
    }

    /// The newest term that the recording knows of.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.contents.term
    }

    /// Damage that was noticed on opening. Whoever wants to know of all damage reads all segments.
    #[must_use]
    pub fn damaged(&self) -> &[Damage] {
        &self.contents.damaged
    }

    /// Reads a segment; each can be read by itself.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownSegment`], or [`StoreError::Damage`] if not even its beginning can be read or it does not
    /// continue the segment before it.
    pub fn read(&self, segment: u64) -> Result<SegmentReader, StoreError> {
        contents::open_segment(&self.layout, &self.header, &self.contents.segments, segment)
    }

    /// Who wrote it last; `None` if that was never said.
    ///
    /// # Errors
    ///
    /// [`StoreError::Writer`], [`StoreError::Io`].
    pub fn writer(&self) -> Result<Option<Writer>, StoreError> {
        Writer::read(&self.layout.writer())
    }

    /// Where snapshots are kept.
    #[must_use]
    pub fn snapshots_dir(&self) -> PathBuf {
        self.layout.snapshots()
    }
}
