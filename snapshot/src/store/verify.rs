//! Looking for damage everywhere.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use echovisor_event::{Digest, Position};

use super::{
    damage::{Damage, DamageKind},
    error::StoreError,
    manifest::{self, Manifest},
    objects::Reader,
    pack::HEADER,
    record::{self, Kind, Unpacker},
    scan::{self, Found},
    snapshots::{Snapshots, level_lengths, pages_below},
};
use crate::digest::{FAN_OUT, of_zero_page};

impl Snapshots {
    /// Reads the whole store, and tells everything that is not what was written, with the snapshots and pages that need it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if not even the directories can be read.
    pub fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        let layout = self.layout();
        let mut unpacker = Unpacker::new().map_err(StoreError::io("reading", &layout.dir))?;
        let (mut whole, mut found) = (HashSet::new(), Vec::new());
        for number in layout.pack_numbers()? {
            let mut damaged = |offset, part, kind| {
                let (file, snapshots, pages) = (layout.pack(number), Vec::new(), Vec::new());
                found.push(Damage { file, offset, part, kind, snapshots, pages });
            };
            scan::pack(layout, number, HEADER, &mut unpacker, &mut |found| match found {
                Found::Object(prefix, ..) => drop(whole.insert(prefix.digest)),
                Found::Broken(prefix, place, kind) => {
                    damaged(place.offset, prefix.kind.part(prefix.digest), kind);
                }
                Found::Strange(offset, part, kind) => damaged(offset, part, kind),
            });
        }
        let (good, lost, zero) = (HashSet::new(), HashMap::new(), of_zero_page());
        let mut walk = Walk { snapshots: self, reader: Reader::new(self)?, whole, good, lost, zero };
        let mut manifests = Vec::new();
        for position in layout.positions()? {
            match Manifest::read(layout.manifest(position), position) {
                Ok(manifest) => manifests.extend(walk.snapshot(&manifest).map(|damage| *damage)),
                Err(damage) => manifests.push(*damage),
            }
        }
        let mut lost: Vec<Damage> = walk.lost.into_values().collect();
        lost.iter_mut().for_each(|damage| merge(&mut damage.pages));
        // A record is told of once: as what snapshots need of it, if they do.
        found.retain(|found| {
            !lost.iter().any(|lost| (&lost.file, lost.offset) == (&found.file, found.offset))
        });
        found.extend(lost);
        found.sort_by(|one, other| (&one.file, one.offset).cmp(&(&other.file, other.offset)));
        manifests.extend(found);
        Ok(manifests)
    }
}

/// The way through the trees of all snapshots.
struct Walk<'a> {
    snapshots: &'a Snapshots,
    reader: Reader<'a>,
    /// Objects that some pack has.
    whole: HashSet<Digest>,
    /// Nodes over so many pages below which nothing is missing.
    good: HashSet<(Digest, usize)>,
    /// What is missing, and who needs it.
    lost: HashMap<Digest, Damage>,
    /// The digest of a page of zeros.
    zero: Digest,
}

impl Walk<'_> {
    /// Looks at one snapshot. What does not fit its manifest is returned.
    fn snapshot(&mut self, manifest: &Manifest) -> Option<Box<Damage>> {
        let top = level_lengths(manifest.pages()).len() - 1;
        let mut misfit = None;
        self.node(manifest, top, 0, manifest.root, &mut misfit);
        if self.whole.contains(&manifest.state) {
            misfit = self.snapshots.read_state(&mut self.reader, manifest).err().or(misfit);
        } else {
            self.lose(Kind::State, manifest.state, manifest.position, 0..0);
        }
        misfit
    }

    /// Whether all is there of a node.
    fn node(
        &mut self,
        manifest: &Manifest,
        level: usize,
        index: usize,
        digest: Digest,
        misfit: &mut Option<Box<Damage>>,
    ) -> bool {
        let pages = pages_below(level, index, manifest.pages());
        if level == 0 {
            // Nobody reads the page of zeros.
            let whole = digest == self.zero || self.whole.contains(&digest);
            if !whole {
                self.lose(Kind::Page, digest, manifest.position, pages);
            }
            return whole;
        }
        if self.good.contains(&(digest, pages.len())) {
            return true;
        }
        let children: Vec<Digest> = match self.reader.read(Kind::Node, &digest) {
            Ok(content) => record::children(content).collect(),
            Err(_) => {
                self.lose(Kind::Node, digest, manifest.position, pages);
                return false;
            }
        };
        if children.len() != pages.len().div_ceil(FAN_OUT.pow(level as u32 - 1)) {
            let path = self.snapshots.layout().manifest(manifest.position);
            let kind = DamageKind::Content("a tree of another size than its memory");
            *misfit = Some(manifest::damaged(path, manifest.position, kind));
            return false;
        }
        let mut whole = true;
        for (child, digest) in children.into_iter().enumerate() {
            whole &= self.node(manifest, level - 1, index * FAN_OUT + child, digest, misfit);
        }
        if whole {
            self.good.insert((digest, pages.len()));
        }
        whole
    }

    fn lose(&mut self, kind: Kind, digest: Digest, position: Position, pages: Range<usize>) {
        if !self.lost.contains_key(&digest)
            && let Err(lost) = self.reader.read(kind, &digest)
        {
            self.lost.insert(digest, *lost.of(&[], None));
        }
        if let Some(damage) = self.lost.get_mut(&digest) {
            if damage.snapshots.last() != Some(&position) {
                damage.snapshots.push(position);
            }
            if !pages.is_empty() {
                damage.pages.push(pages);
            }
        }
    }
}

/// Sorts ranges, and makes one of those that touch.
fn merge(ranges: &mut Vec<Range<usize>>) {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges.drain(..) {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    *ranges = merged;
}
