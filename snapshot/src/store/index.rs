//! The index: which object is where. Kept in sled, derived from the packs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use echovisor_event::Digest;

use super::error::StoreError;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pack: u64,
    pub(super) offset: u64,
    /// Length of the record's body, bytes.
    pub(super) len: u32,
}

impl Place {
    /// As it stands in the index: big endian.
    fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.pack.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_be_bytes());
        bytes[16..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Place> {
        let (pack, rest) = bytes.split_first_chunk()?;
        let (offset, len) = rest.split_first_chunk()?;
        let len = u32::from_be_bytes(len.try_into().ok()?);
        Some(Place { pack: u64::from_be_bytes(*pack), offset: u64::from_be_bytes(*offset), len })
    }
}

/// How long an index is waited for that sled says is open elsewhere. Our lock keeps out everybody but other readers, of whom sled admits one
/// at a time. And whoever closed it may be done while a thread of sled still holds sled's own lock.
const PATIENCE: Duration = Duration::from_secs(2);

/// The open index.
pub(super) struct Index {
    path: PathBuf,
    db: sled::Db,
    objects: sled::Tree,
    packs: sled::Tree,
}

impl Index {
    /// Opens it, or makes one. Waits for a while if it is in use.
    pub(super) fn open(path: &Path) -> Result<Index, StoreError> {
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
        let (objects, packs) = (tree("objects")?, tree("packs")?);
        Ok(Index { path: path.to_owned(), db, objects, packs })
    }

    /// As [`Index::open`]; an index that sled cannot read is made anew, empty.
    pub(super) fn open_or_renew(path: &Path) -> Result<Index, StoreError> {
        match Index::open(path) {
            Err(StoreError::Index { .. }) => {
                fs::remove_dir_all(path).map_err(StoreError::io("removing", path))?;
                Index::open(path)
            }
            other => other,
        }
    }

    /// Where an object is said to be.
    pub(super) fn find(&self, digest: &Digest) -> Result<Option<Place>, StoreError> {
        let found = self.objects.get(digest.0).map_err(|source| self.wrong(source))?;
        Ok(found.and_then(|place| Place::from_bytes(&place)))
    }

    /// How much of each pack is indexed: its first bytes up to here.
    pub(super) fn packs(&self) -> Result<BTreeMap<u64, u64>, StoreError> {
        let mut found = BTreeMap::new();
        for item in &self.packs {
            let (key, value) = item.map_err(|source| self.wrong(source))?;
            if let (Some(number), Some(bytes)) = (number(&key), number(&value)) {
                found.insert(number, bytes);
            }
        }
        Ok(found)
    }

    /// Adds objects.
    pub(super) fn add<'a>(
        &self,
        places: impl IntoIterator<Item = (&'a Digest, &'a Place)>,
    ) -> Result<(), StoreError> {
        for (digest, place) in places {
            let value = &place.to_bytes()[..];
            self.objects.insert(digest.0, value).map_err(|source| self.wrong(source))?;
        }
        Ok(())
    }

    /// Says how much of a pack is indexed.
    pub(super) fn set_pack(&self, number: u64, bytes: u64) -> Result<(), StoreError> {
        let value = &bytes.to_be_bytes()[..];
        self.packs.insert(number.to_be_bytes(), value).map_err(|source| self.wrong(source))?;
        Ok(())
    }

    /// Forgets the objects that need not be kept, and packs that are to go.
    pub(super) fn retain(
        &self,
        keep: impl Fn(&Digest) -> bool,
        gone: &BTreeSet<u64>,
    ) -> Result<(), StoreError> {
        for item in &self.objects {
            let (key, _) = item.map_err(|source| self.wrong(source))?;
            if !key.as_ref().try_into().is_ok_and(|digest| keep(&Digest(digest))) {
                self.objects.remove(key).map_err(|source| self.wrong(source))?;
            }
        }
        for number in gone {
            self.packs.remove(number.to_be_bytes()).map_err(|source| self.wrong(source))?;
        }
        Ok(())
    }

    /// Forgets everything.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        for tree in [&self.objects, &self.packs] {
            tree.clear().map_err(|source| self.wrong(source))?;
        }
        Ok(())
    }

    /// Makes all of it durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|source| self.wrong(source))?;
        Ok(())
    }

    fn wrong(&self, source: sled::Error) -> StoreError {
        index_error(&self.path, source)
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
