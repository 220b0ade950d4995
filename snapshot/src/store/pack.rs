//! A pack: a file of records, one after the other, behind `magic [8] | version u16 | 0 [6]`.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{STORE_VERSION, damage::DamageKind, error::StoreError, files, record::RECORD_MAX};

const MAGIC: [u8; 8] = *b"ECHOPACK";

/// Bytes before the first record.
pub(super) const HEADER: u64 = 16;

/// A pack that has come to this length takes no more records, bytes. So small that one can be read as a whole, so large that
/// there are not too many of them.
pub(super) const FULL: u64 = 32 << 20;

/// The longest pack, bytes.
pub(super) const PACK_MAX: u64 = FULL + RECORD_MAX as u64;

/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

/// The pack to which records are appended.
pub(super) struct Pack {
    pub(super) number: u64,
    path: PathBuf,
    file: File,
    /// Length of what is durable, bytes.
    durable: u64,
    /// Length of what was appended, bytes; its end may still stand in `buffer`.
    len: u64,
    buffer: Vec<u8>,
    broken: bool,
}

impl Pack {
    /// Makes a new one.
    pub(super) fn create(number: u64, path: PathBuf) -> Result<Pack, StoreError> {
        let file = files::write_whole(&path, &header()).map_err(StoreError::io("creating", &path))?;
        Ok(Pack { number, path, file, durable: HEADER, len: HEADER, buffer: Vec::new(), broken: false })
    }

    /// Goes on with one behind its first `len` bytes. What follows them is cut off.
    pub(super) fn resume(number: u64, path: PathBuf, len: u64) -> Result<Pack, StoreError> {
        let open = || {
            let mut file = File::options().write(true).open(&path)?;
            file.set_len(len)?;
            file.seek(SeekFrom::Start(len))?;
            file.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(StoreError::io("opening", &path))?;
        Ok(Pack { number, path, file, durable: len, len, buffer: Vec::new(), broken: false })
    }

    /// Length of what was appended, bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= FULL
    }

    /// Appends what `put` appends to the buffer it gets, and returns where that begins.
    pub(super) fn append<T>(&mut self, put: impl FnOnce(&mut Vec<u8>) -> T) -> Result<(u64, T), StoreError> {
        if self.broken {
            return Err(StoreError::Broken { file: self.path.clone() });
        }
        let (offset, before) = (self.len, self.buffer.len());
        let done = put(&mut self.buffer);
        self.len += (self.buffer.len() - before) as u64;
        if self.buffer.len() >= BUFFER {
            self.write()?;
        }
        Ok((offset, done))
    }

    /// Makes all that was appended durable.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Broken { file: self.path.clone() });
        }
        if self.len == self.durable {
            return Ok(());
        }
        self.write()?;
        self.file.sync_data().map_err(|error| {
            // The kernel may have dropped what it could not write: trying again would report success without it.
            self.broken = true;
            StoreError::io("syncing", &self.path)(error)
        })?;
        self.durable = self.len;
        Ok(())
    }

    /// Forgets what was appended and is not durable.
    pub(super) fn undo(&mut self) {
        self.buffer.clear();
        self.len = self.durable;
        let undone =
            self.file.set_len(self.durable).and_then(|()| self.file.seek(SeekFrom::Start(self.durable)));
        self.broken |= undone.is_err();
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(StoreError::io("writing", &self.path))
    }
}

/// The beginning of a pack's file.
fn header() -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&STORE_VERSION.to_le_bytes());
    header
}

/// Whether `bytes` begin as a pack does.
pub(super) fn check(bytes: &[u8]) -> Result<(), DamageKind> {
    let Some(found) = bytes.first_chunk::<{ HEADER as usize }>() else {
        return Err(DamageKind::Truncated { missing: HEADER - bytes.len() as u64 });
    };
    if found[..8] != MAGIC {
        return Err(DamageKind::Changed("magic number"));
    }
    match u16::from_le_bytes([found[8], found[9]]) {
        STORE_VERSION if *found == header() => Ok(()),
        STORE_VERSION => Err(DamageKind::Changed("header")),
        found => Err(DamageKind::Version { found }),
    }
}

/// Reads a whole pack, but no more than a pack can have.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DamageKind> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(DamageKind::of)?;
    file.take(PACK_MAX).read_to_end(&mut bytes).map_err(DamageKind::of)?;
    Ok(bytes)
}
