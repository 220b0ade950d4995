//! A store that is written.

use std::{fmt, path::Path};

use echovisor_event::{Digest, limits::PAGE_SIZE};
use echovisor_machine::{MachineState, Memory};
use rkyv::rancor;

use super::{
    append::Appender,
    damage::Damage,
    error::StoreError,
    index::Index,
    layout::{Access, Layout},
    manifest::Manifest,
    record::{Kind, STATE_MAX},
    recover::{rebuild, recover},
    snapshots::Snapshots,
};
use crate::digest::{PageDigests, combine};

/// A store that is open for writing, by one process at a time.
pub struct PageStore {
    snapshots: Snapshots,
    appender: Appender,
}

/// What a snapshot is written from, besides the contents of its pages.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotParts<'a> {
    /// Processor, devices, clock and position.
    pub state: &'a MachineState,
    /// The digests of all pages.
    pub digests: &'a PageDigests,
    /// When it was taken, seconds of UNIX time.
    pub taken: u64,
    /// The segment of the log in which the history goes on from here.
    pub segment: u64,
}

/// Where the contents of pages come from.
pub trait PageSource {
    /// Reads page `index`, or tells by `false` that its content is not at hand. Asked for are pages that the store lacks.
    fn read_page(&self, index: usize, page: &mut [u8; PAGE_SIZE]) -> bool;
}

impl PageSource for Memory {
    fn read_page(&self, index: usize, page: &mut [u8; PAGE_SIZE]) -> bool {
        Memory::read_page(self, index, page);
        true
    }
}

/// What it took to write a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pages that the store did not have.
    pub new_pages: u64,
    /// Nodes of the digest tree that it did not have.
    pub new_nodes: u64,
    /// Bytes by which the packs have grown.
    pub new_bytes: u64,
}

impl fmt::Debug for PageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageStore").field("snapshots", &self.snapshots.list().len()).finish_non_exhaustive()
    }
}

impl PageStore {
    /// Opens the store in `dir`, or makes one there.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. Damage is no error: it is found when it is read.
    pub fn open(dir: &Path) -> Result<PageStore, StoreError> {
        let layout = Layout { dir: dir.to_owned() };
        layout.make()?;
        let lock = layout.lock(Access::Write)?;
        layout.remove_temporary()?;
        let index = Index::open_or_renew(&layout.index())?;
        let newest = layout.pack_numbers()?.last().copied();
        let pack = recover(&layout, &index)?;
        let appender = Appender::new(&layout, pack, newest.map_or(0, |newest| newest.saturating_add(1)))?;
        Ok(PageStore { snapshots: Snapshots::new(layout, Some(index), lock)?, appender })
    }

    /// What is in the store.
    #[must_use]
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Writes a snapshot, durably. Of the pages, only those are asked for that are in no snapshot yet; what is equal below a
    /// node of the tree is not even looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the snapshots that were there before are still there. One of the same position is replaced only by one
    /// that is whole.
    pub fn write(
        &mut self,
        parts: &SnapshotParts<'_>,
        pages: &dyn PageSource,
    ) -> Result<Written, StoreError> {
        let written = self.try_write(parts, pages);
        if written.is_err() {
            self.appender.undo();
        }
        written
    }

    fn try_write(
        &mut self,
        parts: &SnapshotParts<'_>,
        pages: &dyn PageSource,
    ) -> Result<Written, StoreError> {
        let SnapshotParts { state, digests, taken, segment } = *parts;
        let mut written = Written::default();
        let root = digests.root();
        self.put_tree(digests, digests.height() - 1, 0, pages, &mut written)?;

        let content = rkyv::to_bytes::<rancor::Panic>(state).expect("plain values serialize into memory");
        if content.len() > STATE_MAX {
            return Err(StoreError::StateTooLarge { len: content.len(), max: STATE_MAX });
        }
        let address = Kind::State.address(&content);
        if !self.has(&address)? {
            written.new_bytes += self.put(Kind::State, address, &content)?;
        }

        // In this order: a manifest never tells of objects that may get lost, nor the index of any.
        self.appender.commit(self.snapshots.writers_index())?;
        let manifest = Manifest {
            position: state.position,
            digest: combine(root, state),
            root,
            state: address,
            memory: (digests.pages().len() * PAGE_SIZE) as u64,
            taken,
            segment,
        };
        manifest.write(&self.snapshots.layout().manifest(state.position))?;
        self.snapshots.insert(manifest);
        self.snapshots.writers_index().flush()?;
        Ok(written)
    }

    /// Writes what is missing of a node and all that is below it: children before their parents, so that where there is a
    /// node, there is all of it.
    fn put_tree(
        &mut self,
        digests: &PageDigests,
        level: usize,
        index: usize,
        pages: &dyn PageSource,
        written: &mut Written,
    ) -> Result<(), StoreError> {
        let digest = digests.level(level)[index];
        if self.has(&digest)? {
            return Ok(());
        }
        if level == 0 {
            let mut page = [0; PAGE_SIZE];
            if !pages.read_page(index, &mut page) {
                return Err(StoreError::PageMissing { page: index });
            }
            if Kind::Page.address(&page) != digest {
                return Err(StoreError::PageChanged { page: index });
            }
            written.new_bytes += self.put(Kind::Page, digest, &page)?;
            written.new_pages += 1;
            return Ok(());
        }
        let children = digests.children(level, index);
        for child in children.clone() {
            self.put_tree(digests, level - 1, child, pages, written)?;
        }
        let content: Vec<u8> = digests.level(level - 1)[children].iter().flat_map(|child| child.0).collect();
        written.new_bytes += self.put(Kind::Node, digest, &content)?;
        written.new_nodes += 1;
        Ok(())
    }

    /// Whether the store has an object: then it has all that is below it.
    fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.appender.has(self.snapshots.writers_index(), digest)
    }

    /// Appends an object, and returns by how many bytes the packs have grown.
    fn put(&mut self, kind: Kind, digest: Digest, content: &[u8]) -> Result<u64, StoreError> {
        let PageStore { snapshots, appender } = self;
        appender.put(snapshots.layout(), snapshots.writers_index(), kind, digest, content)
    }

    /// For those who remove.
    pub(super) fn parts(&mut self) -> (&mut Snapshots, &mut Appender) {
        (&mut self.snapshots, &mut self.appender)
    }

    /// Reads the whole store as [`Snapshots::verify`] does. What is damaged is taken for missing from then on: a later
    /// snapshot that has the same page or the same part of a tree stores it anew, and so mends the earlier ones.
    ///
    /// # Errors
    ///
    /// As [`Snapshots::verify`], and if the index cannot be written.
    pub fn verify(&mut self) -> Result<Vec<Damage>, StoreError> {
        let damage = self.snapshots.verify()?;
        if !damage.is_empty() {
            rebuild(self.snapshots.layout(), self.snapshots.writers_index())?;
            self.snapshots.changed();
        }
        Ok(damage)
    }
}
