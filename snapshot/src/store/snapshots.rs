//! A store that is read.

use std::{ops::Range, path::Path, sync::OnceLock};

use echovisor_event::{Digest, Position, limits::PAGE_SIZE};
use echovisor_machine::{
    Machine, MachineConfig, MachineState, Memory,
    cpu::{Cpu, CpuError},
};
use rkyv::{rancor, util::AlignedVec};

use super::{
    damage::{Damage, DamageKind},
    error::StoreError,
    index::{Index, Place},
    layout::{Access, Layout, Lock},
    manifest::{self, Manifest},
    objects::{Lost, Reader},
    pack::HEADER,
    record::{self, Kind, Unpacker},
    scan::Objects,
};
use crate::{
    digest::{FAN_OUT, PageDigests, combine, hash, is_zero},
    image::RestoreError,
};

/// The snapshots of a store. Several processes may read them at a time, while none writes.
pub struct Snapshots {
    layout: Layout,
    /// In the order of their positions.
    manifests: Vec<Manifest>,
    damaged: Vec<Damage>,
    index: Option<Index>,
    /// What a search in the packs has found, once there was a reason for one.
    searched: OnceLock<Objects>,
    _lock: Lock,
}

impl Snapshots {
    /// Opens a store for reading.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. A damaged snapshot is no error: loading it is.
    pub fn open(dir: &Path) -> Result<Snapshots, StoreError> {
        let layout = Layout { dir: dir.to_owned() };
        if !layout.packs().is_dir() || !layout.manifests().is_dir() {
            return Err(StoreError::NoStore { dir: dir.to_owned() });
        }
        let lock = layout.lock(Access::Read)?;
        // Without it, the packs are searched: it only saves time.
        let index = Index::open(&layout.index()).ok();
        Snapshots::new(layout, index, lock)
    }

    pub(super) fn new(layout: Layout, index: Option<Index>, lock: Lock) -> Result<Snapshots, StoreError> {
        let (mut manifests, mut damaged) = (Vec::new(), Vec::new());
        for position in layout.positions()? {
            match Manifest::read(layout.manifest(position), position) {
                Ok(manifest) => manifests.push(manifest),
                Err(damage) => damaged.push(*damage),
            }
        }
        Ok(Snapshots { layout, manifests, damaged, index, searched: OnceLock::new(), _lock: lock })
    }

    /// The snapshots, in the order of their positions.
    #[must_use]
    pub fn list(&self) -> &[Manifest] {
        &self.manifests
    }

    /// The newest snapshot that was not taken later than at `position`.
    #[must_use]
    pub fn nearest(&self, position: Position) -> Option<&Manifest> {
        let later = self.manifests.partition_point(|manifest| manifest.position <= position);
        later.checked_sub(1).map(|place| &self.manifests[place])
    }

    /// Manifests that could not be read on opening.
    #[must_use]
    pub fn damaged(&self) -> &[Damage] {
        &self.damaged
    }

    /// Whether the index knows of an object with this address: a page, or a node with all that is below it.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.indexed(digest).is_some()
    }

    /// The content of the page with this digest, if the store has it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damage`] if it can't be read, or is nowhere.
    pub fn page(&self, digest: &Digest) -> Result<[u8; PAGE_SIZE], StoreError> {
        let mut reader = Reader::new(self)?;
        reader.page(digest).copied().map_err(|lost| lost.of(&[], None).into())
    }

    /// The digests of a snapshot's pages, all of which have been read from the store and checked against the root.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSnapshot`], [`StoreError::Damage`].
    pub fn digests(&self, position: Position) -> Result<PageDigests, StoreError> {
        self.read_tree(&mut Reader::new(self)?, self.find(position)?)
    }

    /// Makes `memory` that of a snapshot, whatever it held, and returns the rest of the machine's state and the digests of
    /// the pages. All of it has been checked against the snapshot's digest. After an error `memory` is of no use.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSnapshot`], [`StoreError::MemorySize`], [`StoreError::Damage`].
    pub fn load(
        &self,
        position: Position,
        memory: &Memory,
    ) -> Result<(MachineState, PageDigests), StoreError> {
        let manifest = self.find(position)?;
        if memory.size() != manifest.memory {
            return Err(StoreError::MemorySize { expected: memory.size(), found: manifest.memory });
        }
        let mut reader = Reader::new(self)?;
        let state = self.read_state(&mut reader, manifest)?;
        let digests = self.read_tree(&mut reader, manifest)?;
        let (zeros, mut held) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
        let zero = hash(&zeros);
        for (index, digest) in digests.pages().iter().enumerate() {
            if *digest != zero {
                let page =
                    reader.page(digest).map_err(|lost| lost.of(&[position], Some(index..index + 1)))?;
                memory.write_page(index, page);
                continue;
            }
            // Most pages of a new memory need not be written, and so take no memory of the host.
            memory.read_page(index, &mut held);
            if !is_zero(&held) {
                memory.write_page(index, &zeros);
            }
        }
        Ok((state, digests))
    }

    /// Builds a machine in the state of a snapshot: in new memory, with the processor that `cpu` makes for it.
    ///
    /// # Errors
    ///
    /// If the snapshot is not of a machine with this configuration, damaged, or refused by the processor.
    pub fn restore<C: Cpu>(
        &self,
        position: Position,
        config: &MachineConfig,
        cpu: impl FnOnce(&Memory) -> Result<C, CpuError>,
    ) -> Result<Machine<C>, RestoreError> {
        let memory = Memory::new(config.memory)?;
        let (state, _) = self.load(position, &memory)?;
        let cpu = cpu(&memory)?;
        Ok(Machine::restore(cpu, memory, &config.devices(), &state)?)
    }

    /// The processor's and the devices' state of a snapshot, which fits its digest.
    pub(super) fn read_state(
        &self,
        reader: &mut Reader<'_>,
        manifest: &Manifest,
    ) -> Result<MachineState, Box<Damage>> {
        let position = manifest.position;
        let content = reader.read(Kind::State, &manifest.state).map_err(|lost| lost.of(&[position], None))?;
        let mut aligned: AlignedVec = AlignedVec::with_capacity(content.len());
        aligned.extend_from_slice(content);
        let wrong = |what| {
            let path = self.layout.manifest(position);
            manifest::damaged(path, position, DamageKind::Content(what))
        };
        let state = rkyv::from_bytes::<MachineState, rancor::Error>(&aligned);
        let state = state.map_err(|_| wrong("a state that is none"))?;
        if state.position != position {
            return Err(wrong("a state of another position"));
        }
        if combine(manifest.root, &state) != manifest.digest {
            return Err(wrong("a digest that its pages and its state do not have"));
        }
        Ok(state)
    }

    /// The digest tree of a snapshot. What is read fits its address, so what hangs together fits the root.
    fn read_tree(&self, reader: &mut Reader<'_>, manifest: &Manifest) -> Result<PageDigests, StoreError> {
        let counts = level_lengths(manifest.pages());
        let mut level = vec![manifest.root];
        let mut levels = Vec::with_capacity(counts.len());
        for (height, count) in counts.iter().enumerate().rev().skip(1) {
            let mut below: Vec<Digest> = Vec::with_capacity(*count);
            for (index, digest) in level.iter().enumerate() {
                let pages = pages_below(height + 1, index, manifest.pages());
                let content = reader
                    .read(Kind::Node, digest)
                    .map_err(|lost| lost.of(&[manifest.position], Some(pages)))?;
                below.extend(record::children(content));
                if below.len() != ((index + 1) * FAN_OUT).min(*count) {
                    let path = self.layout.manifest(manifest.position);
                    let kind = DamageKind::Content("a tree of another size than its memory");
                    return Err(manifest::damaged(path, manifest.position, kind).into());
                }
            }
            levels.push(std::mem::replace(&mut level, below));
        }
        levels.push(level);
        levels.reverse();
        Ok(PageDigests::from_levels(levels))
    }

    fn find(&self, position: Position) -> Result<&Manifest, StoreError> {
        let place = self.manifests.binary_search_by_key(&position, |manifest| manifest.position);
        place.map(|place| &self.manifests[place]).map_err(|_| StoreError::NoSnapshot { position })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The index of a store that is written.
    pub(super) fn writers_index(&self) -> &Index {
        self.index.as_ref().expect("a store that is written has its index")
    }

    /// Where the index says that an object is.
    pub(super) fn indexed(&self, digest: &Digest) -> Option<Place> {
        self.index.as_ref()?.find(digest).ok()?
    }

    /// Where a search in all packs finds an object, or what is left of it.
    pub(super) fn searched(&self, digest: &Digest) -> Option<Place> {
        let objects = self.searched.get_or_init(|| self.search());
        objects.places.get(digest).or_else(|| objects.broken.get(digest)).copied()
    }

    /// Where an object is, by the index or by a search. It need not be whole.
    pub(super) fn place(&self, kind: Kind, digest: Digest) -> Result<Place, Lost> {
        let place = self.indexed(&digest).or_else(|| self.searched(&digest));
        place.ok_or_else(|| self.absent(kind, digest))
    }

    fn search(&self) -> Objects {
        let mut objects = Objects::default();
        if let (Ok(numbers), Ok(mut unpacker)) = (self.layout.pack_numbers(), Unpacker::new()) {
            for number in numbers {
                objects.add(&self.layout, number, HEADER, &mut unpacker);
            }
        }
        objects
    }

    /// Forgets what was found by a search: the packs have changed.
    pub(super) fn changed(&mut self) {
        self.searched = OnceLock::new();
    }

    /// An object that is nowhere.
    pub(super) fn absent(&self, kind: Kind, digest: Digest) -> Lost {
        let (file, part) = (self.layout.packs(), kind.part(digest));
        Lost { file, offset: 0, part, kind: DamageKind::Absent }
    }

    /// Lists snapshots no longer.
    pub(super) fn remove(&mut self, positions: &[Position]) {
        self.manifests.retain(|manifest| !positions.contains(&manifest.position));
    }

    /// Lists a snapshot that was written.
    pub(super) fn insert(&mut self, manifest: Manifest) {
        self.damaged.retain(|damage| damage.snapshots != [manifest.position]);
        match self.manifests.binary_search_by_key(&manifest.position, |known| known.position) {
            Ok(place) => self.manifests[place] = manifest,
            Err(place) => self.manifests.insert(place, manifest),
        }
    }
}

impl Lost {
    /// What is lost with it.
    pub(super) fn of(self, snapshots: &[Position], pages: Option<Range<usize>>) -> Box<Damage> {
        let Lost { file, offset, part, kind } = self;
        let (snapshots, pages) = (snapshots.to_vec(), pages.into_iter().collect());
        Box::new(Damage { file, offset, part, kind, snapshots, pages })
    }
}

/// How many nodes each level of a tree over so many pages has.
pub(super) fn level_lengths(pages: usize) -> Vec<usize> {
    let mut lengths = vec![pages];
    while let Some(below) = lengths.last().copied().filter(|length| *length > 1) {
        lengths.push(below.div_ceil(FAN_OUT));
    }
    lengths
}

/// The pages below a node of a tree over so many pages.
pub(super) fn pages_below(level: usize, index: usize, pages: usize) -> Range<usize> {
    let width = FAN_OUT.saturating_pow(level as u32);
    index.saturating_mul(width).min(pages)..(index + 1).saturating_mul(width).min(pages)
}
