//! What each snapshot holds, and what of that no other needs.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use echovisor_event::{Digest, Position};

use super::{
    damage::Damage,
    error::StoreError,
    manifest::Manifest,
    objects::Reader,
    record::{self, Kind, PREFIX},
    snapshots::{Snapshots, level_lengths},
};
use crate::digest::of_zero_page;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Where it was taken.
    pub position: Position,
    /// Pages that are not zero.
    pub pages: u64,
    /// Contents of pages that no earlier snapshot has.
    pub new_pages: u64,
    /// Bytes in the packs of what only it needs.
    pub own_bytes: u64,
}

impl Snapshots {
    /// What each snapshot holds, in the order of their positions; or why it cannot be counted.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if nothing can be read.
    pub fn shares(&self) -> Result<Vec<Result<Share, Box<Damage>>>, StoreError> {
        let mut count = Count {
            snapshots: self,
            reader: Reader::new(self)?,
            objects: HashMap::new(),
            zero: of_zero_page(),
            new_pages: 0,
        };
        let counted: Vec<_> =
            self.list().iter().map(|manifest| (manifest.position, count.snapshot(manifest))).collect();
        let mut own_bytes: HashMap<Position, u64> = HashMap::new();
        for object in count.objects.values() {
            if let Some(owner) = object.owner {
                *own_bytes.entry(owner).or_default() += object.bytes;
            }
        }
        let share = |(position, counted): (Position, Result<_, _>)| {
            counted.map(|(pages, new_pages)| {
                let own_bytes = own_bytes.get(&position).copied().unwrap_or(0);
                Share { position, pages, new_pages, own_bytes }
            })
        };
        Ok(counted.into_iter().map(share).collect())
    }

    /// Bytes of all packs.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the system does not tell.
    pub fn stored_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.sizes()?.values().sum())
    }

    /// The packs with their lengths, bytes.
    pub(super) fn sizes(&self) -> Result<BTreeMap<u64, u64>, StoreError> {
        let layout = self.layout();
        let size = |number| {
            let path = layout.pack(number);
            Ok((number, fs::metadata(&path).map_err(StoreError::io("reading", &path))?.len()))
        };
        layout.pack_numbers()?.into_iter().map(size).collect()
    }
}

/// An object that was met.
struct Object {
    /// The snapshot that needs it, while there is only one.
    owner: Option<Position>,
    /// Pages below it that are not zero.
    pages: u64,
    /// Bytes of its record.
    bytes: u64,
}

struct Count<'a> {
    snapshots: &'a Snapshots,
    reader: Reader<'a>,
    objects: HashMap<Digest, Object>,
    /// The digest of a page of zeros.
    zero: Digest,
    /// Pages that were met for the first time, in the snapshot that is being looked at.
    new_pages: u64,
}

impl Count<'_> {
    /// How many pages a snapshot has that are not zero, and how many of their contents were not met before.
    fn snapshot(&mut self, manifest: &Manifest) -> Result<(u64, u64), Box<Damage>> {
        self.new_pages = 0;
        let top = level_lengths(manifest.pages()).len() - 1;
        self.object(manifest, Kind::State, 0, manifest.state)?;
        let pages = self.object(manifest, Kind::Node, top, manifest.root)?;
        Ok((pages, self.new_pages))
    }

    /// Counts an object, with all that is below it. Returns how many pages that are which are not zero.
    fn object(
        &mut self,
        manifest: &Manifest,
        kind: Kind,
        level: usize,
        digest: Digest,
    ) -> Result<u64, Box<Damage>> {
        let position = manifest.position;
        let known = self.objects.get_mut(&digest).map(|object| {
            let news = object.owner.is_some_and(|owner| owner != position);
            object.owner = object.owner.filter(|_| !news);
            (object.pages, news)
        });
        // What was shared before, or met in this snapshot, tells nothing new.
        if let Some((pages, news)) = known
            && (!news || level == 0)
        {
            return Ok(pages);
        }
        let mut pages = 0;
        if level > 0 {
            let content = self.reader.read(Kind::Node, &digest).map_err(|lost| lost.of(&[position], None))?;
            let children: Vec<Digest> = record::children(content).collect();
            let kind = if level == 1 { Kind::Page } else { Kind::Node };
            for child in children {
                pages += self.object(manifest, kind, level - 1, child)?;
            }
        } else if kind == Kind::Page && digest != self.zero {
            pages = 1;
            self.new_pages += 1;
        }
        if known.is_none() {
            let bytes = match self.snapshots.place(kind, digest) {
                Ok(place) => PREFIX as u64 + u64::from(place.len),
                // Nobody reads it.
                Err(_) if digest == self.zero => 0,
                Err(lost) => return Err(lost.of(&[position], None)),
            };
            self.objects.insert(digest, Object { owner: Some(position), pages, bytes });
        }
        Ok(pages)
    }
}
