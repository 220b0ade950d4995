//! Removing snapshots, and freeing the space that only they needed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    time::Duration,
};

use echovisor_event::{Digest, Position};

use super::{
    damage::Damage,
    error::StoreError,
    files,
    index::Place,
    manifest::Manifest,
    objects::{Lost, Reader},
    pack::HEADER,
    record::{self, Kind, PREFIX},
    snapshots::{Snapshots, level_lengths, pages_below},
    writer::PageStore,
};
use crate::digest::FAN_OUT;

/// Which snapshots stay. One stays if any of these says so; if none says anything, all stay. The newest one always does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest.
    pub count: Option<usize>,
    /// Those that are no older.
    pub age: Option<Duration>,
    /// The oldest, with which a recording begins.
    pub oldest: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Snapshots, by position.
    pub snapshots: Vec<Position>,
    /// Bytes by which the packs have become smaller.
    pub bytes: u64,
}

impl Keep {
    /// Whether a snapshot stays that has so many newer ones.
    fn keeps(&self, manifest: &Manifest, newer: usize, now: u64) -> bool {
        let young = |age: Duration| now.saturating_sub(manifest.taken) <= age.as_secs();
        newer == 0
            || (self.count.is_none() && self.age.is_none())
            || self.count.is_some_and(|count| newer < count)
            || self.age.is_some_and(young)
    }
}

impl PageStore {
    /// Removes the snapshots that need not be kept; `now` is in seconds of UNIX time. If there were any, the space is freed that
    /// only they needed: packs in which little is left are written anew.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. With [`StoreError::Damage`] snapshots are removed but no space is freed: what a damaged snapshot needs
    /// cannot be told from what nobody needs.
    pub fn retain(&mut self, keep: &Keep, now: u64) -> Result<Freed, StoreError> {
        let mut all = self.snapshots().list().to_vec();
        all.sort_by_key(Manifest::order);
        let remove = |(place, manifest): (usize, &Manifest)| {
            let stays = keep.keeps(manifest, all.len() - 1 - place, now) || (keep.oldest && place == 0);
            (!stays).then_some(manifest.position)
        };
        let snapshots: Vec<Position> = all.iter().enumerate().filter_map(remove).collect();
        if snapshots.is_empty() {
            return Ok(Freed::default());
        }
        // They go first: whatever happens then, none is listed of which something is missing.
        for position in &snapshots {
            let path = self.snapshots().layout().manifest(*position);
            fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
        }
        let dir = self.snapshots().layout().manifests();
        files::sync_dir(&dir).map_err(StoreError::io("syncing", &dir))?;
        self.parts().0.remove(&snapshots);
        Ok(Freed { snapshots, bytes: self.free()? })
    }

    /// Frees what no snapshot needs. Returns by how many bytes the packs have become smaller.
    fn free(&mut self) -> Result<u64, StoreError> {
        let before = self.snapshots().sizes()?;
        let live = live(self.snapshots())?;
        let mut used: BTreeMap<u64, u64> = BTreeMap::new();
        for (_, place) in live.values() {
            *used.entry(place.pack).or_default() += (PREFIX + place.len as usize) as u64;
        }
        // To copy the rest is worth it where more than half is free.
        let sparse = |number: &u64, size: u64| {
            used.get(number).copied().unwrap_or(0) * 2 < size.saturating_sub(HEADER)
        };
        let victims: BTreeSet<u64> = before
            .iter()
            .filter(|(number, size)| sparse(number, **size))
            .map(|(number, _)| *number)
            .collect();
        let mut rest: Vec<(Place, Kind, Digest)> =
            live.iter().map(|(digest, (kind, place))| (*place, *kind, *digest)).collect();
        rest.retain(|(place, ..)| victims.contains(&place.pack));
        rest.sort_by_key(|(place, ..)| (place.pack, place.offset));
        self.copy(&rest, &victims)?;
        // The copies are durable, and nothing may lead to a place that is gone.
        self.snapshots().writers_index().retain(|digest| live.contains_key(digest), &victims)?;
        self.snapshots().writers_index().flush()?;
        let layout = self.snapshots().layout();
        for number in victims {
            let path = layout.pack(number);
            fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
        }
        let dir = layout.packs();
        files::sync_dir(&dir).map_err(StoreError::io("syncing", &dir))?;
        self.parts().0.changed();
        Ok(before.values().sum::<u64>().saturating_sub(self.snapshots().stored_bytes()?))
    }

    /// Appends objects anew, durably, and to a pack that stays.
    fn copy(&mut self, objects: &[(Place, Kind, Digest)], victims: &BTreeSet<u64>) -> Result<(), StoreError> {
        let (snapshots, appender) = self.parts();
        appender.leave(victims);
        let (layout, index) = (snapshots.layout(), snapshots.writers_index());
        let mut reader = Reader::new(snapshots)?;
        let mut copy = || {
            for (_, kind, digest) in objects {
                let content = reader.read(*kind, digest).map_err(|lost| lost.of(&[], None))?;
                appender.put(layout, index, *kind, *digest, content)?;
            }
            appender.commit(index)
        };
        let copied = copy();
        if copied.is_err() {
            appender.undo();
        }
        copied
    }
}

/// The objects that the snapshots of a store need.
fn live(snapshots: &Snapshots) -> Result<HashMap<Digest, (Kind, Place)>, StoreError> {
    let mut marker = Marker { snapshots, reader: Reader::new(snapshots)?, objects: HashMap::new() };
    // As the directory has them: one whose manifest cannot be read needs what nobody knows.
    for position in snapshots.layout().positions()? {
        let manifest = Manifest::read(snapshots.layout().manifest(position), position)?;
        marker.object(Kind::State, manifest.state).map_err(|lost| lost.of(&[position], None))?;
        let top = level_lengths(manifest.pages()).len() - 1;
        marker.node(&manifest, top, 0, manifest.root)?;
    }
    Ok(marker.objects)
}

struct Marker<'a> {
    snapshots: &'a Snapshots,
    reader: Reader<'a>,
    objects: HashMap<Digest, (Kind, Place)>,
}

impl Marker<'_> {
    /// Marks an object, and tells whether it is new.
    fn object(&mut self, kind: Kind, digest: Digest) -> Result<bool, Lost> {
        if self.objects.contains_key(&digest) {
            return Ok(false);
        }
        let place = self.snapshots.place(kind, digest)?;
        self.objects.insert(digest, (kind, place));
        Ok(true)
    }

    /// Marks a node and all that is below it.
    fn node(
        &mut self,
        manifest: &Manifest,
        level: usize,
        index: usize,
        digest: Digest,
    ) -> Result<(), Box<Damage>> {
        let pages = pages_below(level, index, manifest.pages());
        let kind = if level == 0 { Kind::Page } else { Kind::Node };
        let lost = |lost: Lost| lost.of(&[manifest.position], Some(pages.clone()));
        if !self.object(kind, digest).map_err(lost)? || level == 0 {
            return Ok(());
        }
        let content = self.reader.read(Kind::Node, &digest).map_err(lost)?;
        let children: Vec<Digest> = record::children(content).collect();
        let first = index * FAN_OUT;
        for (child, digest) in children.into_iter().enumerate() {
            self.node(manifest, level - 1, first + child, digest)?;
        }
        Ok(())
    }
}
