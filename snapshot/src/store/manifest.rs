//! A snapshot's manifest: what it is, and where its tree begins.
//!
//! The file is `magic [8] | version u16 | 0 u16 | len u32 | blake3 [32] | body`, numbers little endian. The hash covers
//! everything before and after itself.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use echovisor_event::{
    Digest, Position,
    limits::{MEMORY_MAX, MEMORY_MIN, MEMORY_STEP, PAGE_SIZE},
};
use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use super::{
    STORE_VERSION,
    damage::{Damage, DamageKind, Part},
    error::StoreError,
    files,
};

const MAGIC: [u8; 8] = *b"ECHOSNAP";

/// Bytes before the hash.
const LABEL: usize = 16;

/// Bytes before the body.
const PREFIX: usize = 48;

/// What is known of a snapshot without reading it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Where it was taken.
    pub position: Position,
    /// The digest of the whole state.
    pub digest: Digest,
    /// The digest that stands for all pages: the root of their tree.
    pub root: Digest,
    /// The address of the machine's state.
    pub state: Digest,
    /// Size of RAM, bytes.
    pub memory: u64,
    /// When it was taken, seconds of UNIX time.
    pub taken: u64,
    /// The segment of the log in which the history goes on from here.
    pub segment: u64,
}

impl Manifest {
    /// Orders snapshots by when they were taken. That shows in the segment before it does in the position: after a time at another node the
    /// guest may have come back to an earlier one.
    #[must_use]
    pub fn order(&self) -> (u64, Position) {
        (self.segment, self.position)
    }

    /// How many pages RAM has.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.memory as usize / PAGE_SIZE
    }

    fn to_bytes(self) -> Vec<u8> {
        let body = rkyv::to_bytes::<rancor::Panic>(&self).expect("plain values serialize into memory");
        let mut out = Vec::with_capacity(PREFIX + body.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&STORE_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let hash = hash(&out, &body);
        out.extend_from_slice(hash.as_bytes());
        out.extend_from_slice(&body);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Manifest, DamageKind> {
        const WHOLE: usize = PREFIX + size_of::<ArchivedManifest>();
        if bytes.first_chunk().is_some_and(|magic| *magic != MAGIC) {
            return Err(DamageKind::Changed("magic number"));
        }
        if let Some([low, high]) = bytes.get(8..10) {
            let found = u16::from_le_bytes([*low, *high]);
            if found != STORE_VERSION {
                return Err(DamageKind::Version { found });
            }
        }
        match bytes.len() {
            0..WHOLE => return Err(DamageKind::Truncated { missing: (WHOLE - bytes.len()) as u64 }),
            WHOLE => {}
            _ => return Err(DamageKind::Changed("length")),
        }
        let (prefix, body) = bytes.split_at(PREFIX);
        let (label, expected) = prefix.split_at(LABEL);
        if label[12..] != (body.len() as u32).to_le_bytes() || hash(label, body).as_bytes() != expected {
            return Err(DamageKind::Changed("content"));
        }
        let mut aligned: AlignedVec = AlignedVec::with_capacity(body.len());
        aligned.extend_from_slice(body);
        let manifest = rkyv::from_bytes::<Manifest, rancor::Error>(&aligned);
        let manifest = manifest.map_err(|_| DamageKind::Content("it is not laid out as a manifest"))?;
        let possible = (MEMORY_MIN..=MEMORY_MAX).contains(&manifest.memory)
            && manifest.memory.is_multiple_of(MEMORY_STEP);
        if possible { Ok(manifest) } else { Err(DamageKind::Content("a memory that no guest can have")) }
    }

    /// Writes it, durably.
    pub(super) fn write(self, path: &Path) -> Result<(), StoreError> {
        files::write_whole(path, &self.to_bytes()).map_err(StoreError::io("writing", path))?;
        Ok(())
    }

    /// Reads the manifest of the snapshot at `position`.
    pub(super) fn read(path: PathBuf, position: Position) -> Result<Manifest, Box<Damage>> {
        let read = || {
            let mut bytes = Vec::new();
            let file = File::open(&path).map_err(DamageKind::of)?;
            // No more than is needed to see that it is too long.
            file.take(PREFIX as u64 * 8).read_to_end(&mut bytes).map_err(DamageKind::of)?;
            let manifest = Manifest::from_bytes(&bytes)?;
            if manifest.position == position {
                Ok(manifest)
            } else {
                Err(DamageKind::Content("another position than the file's name"))
            }
        };
        read().map_err(|kind| damaged(path, position, kind))
    }
}

/// Damage of the manifest of the snapshot at `position`.
pub(super) fn damaged(file: PathBuf, position: Position, kind: DamageKind) -> Box<Damage> {
    let (snapshots, pages) = (vec![position], Vec::new());
    Box::new(Damage { file, offset: 0, part: Part::Manifest, kind, snapshots, pages })
}

fn hash(label: &[u8], body: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(label).update(body).finalize()
}
