//! Reading objects by their address.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt, path::PathBuf};

use echovisor_event::{Digest, limits::PAGE_SIZE};

use super::{
    damage::{DamageKind, Part},
    error::StoreError,
    index::Place,
    record::{Kind, PREFIX, Prefix, RECORD_MAX, Unpacker},
    snapshots::Snapshots,
};

/// Packs that are kept open; a store has any number of them.
const OPEN_MAX: usize = 64;

/// An object that cannot be read.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) part: Part,
    pub(super) kind: DamageKind,
}

/// Reads objects.
pub(super) struct Reader<'a> {
    snapshots: &'a Snapshots,
    files: HashMap<u64, File>,
    record: Vec<u8>,
    unpacker: Unpacker,
}

impl<'a> Reader<'a> {
    pub(super) fn new(snapshots: &'a Snapshots) -> Result<Reader<'a>, StoreError> {
        let unpacker = Unpacker::new().map_err(StoreError::io("reading", &snapshots.layout().dir))?;
        Ok(Reader { snapshots, files: HashMap::new(), record: Vec::new(), unpacker })
    }

    /// The content of an object. Where the index does not lead to it, the packs are searched.
    pub(super) fn read(&mut self, kind: Kind, digest: &Digest) -> Result<&[u8], Lost> {
        let mut lost = None;
        if let Some(place) = self.snapshots.indexed(digest) {
            match self.read_at(kind, digest, place) {
                Ok(()) => return Ok(self.unpacker.content()),
                Err(damage) => lost = Some((place, damage)),
            }
        }
        if let Some(place) = self.snapshots.searched(digest)
            && lost.as_ref().is_none_or(|(before, _)| *before != place)
        {
            match self.read_at(kind, digest, place) {
                Ok(()) => return Ok(self.unpacker.content()),
                Err(damage) => lost = Some((place, damage)),
            }
        }
        Err(match lost {
            Some((place, damage)) => {
                let file = self.snapshots.layout().pack(place.pack);
                Lost { file, offset: place.offset, part: kind.part(*digest), kind: damage }
            }
            None => self.snapshots.absent(kind, *digest),
        })
    }

    /// The content of a page.
    pub(super) fn page(&mut self, digest: &Digest) -> Result<&[u8; PAGE_SIZE], Lost> {
        let content = self.read(Kind::Page, digest)?;
        Ok(content.try_into().expect("an object of this kind has the length of a page"))
    }

    /// Makes the content of an object that is said to be at `place` the last one that was opened.
    fn read_at(&mut self, kind: Kind, digest: &Digest, place: Place) -> Result<(), DamageKind> {
        let len = PREFIX + place.len as usize;
        if len > RECORD_MAX {
            return Err(DamageKind::Content("a record longer than any"));
        }
        self.record.resize(len, 0);
        if !self.files.contains_key(&place.pack) {
            let file = File::open(self.snapshots.layout().pack(place.pack)).map_err(DamageKind::of)?;
            if self.files.len() >= OPEN_MAX {
                self.files.clear();
            }
            self.files.insert(place.pack, file);
        }
        read_exact_at(&self.files[&place.pack], &mut self.record, place.offset)?;
        let prefix = Prefix::read(&self.record).ok_or(DamageKind::Changed("record"))?;
        if (prefix.kind, prefix.digest, prefix.len) != (kind, *digest, place.len) {
            return Err(DamageKind::Content("it is another object than expected"));
        }
        self.unpacker.open(&prefix, &self.record[PREFIX..]).map(drop)
    }
}

fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> Result<(), DamageKind> {
    while !out.is_empty() {
        match file.read_at(out, offset) {
            Ok(0) => return Err(DamageKind::Truncated { missing: out.len() as u64 }),
            Ok(count) => {
                out = &mut out[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DamageKind::Io(error)),
        }
    }
    Ok(())
}
