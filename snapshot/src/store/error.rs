//! Why a store could not do what it was asked.

use std::{io, path::PathBuf};

use echovisor_event::Position;

use super::damage::Damage;

/// A store that could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no store.
    #[error("{dir} holds no snapshots")]
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process has it open.
    #[error("{dir} is in use by another process")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// No such snapshot.
    #[error("there is no snapshot at position {position}")]
    NoSnapshot {
        /// Where.
        position: Position,
    },
    /// A snapshot does not fit the memory that is to be filled.
    #[error("the snapshot is of {found} bytes of RAM, not {expected}")]
    MemorySize {
        /// The memory's size, bytes.
        expected: u64,
        /// The snapshot's, bytes.
        found: u64,
    },
    /// A page is needed that whoever writes the snapshot does not have.
    #[error("page {page} is not in the store, and its content is not at hand")]
    PageMissing {
        /// Its number.
        page: usize,
    },
    /// A page's content is not what its digest says.
    #[error("the content of page {page} is not that of its digest: it has changed since")]
    PageChanged {
        /// Its number.
        page: usize,
    },
    /// A machine's state is larger than any that could be read again.
    #[error("a machine state of {len} bytes; at most {max} are possible")]
    StateTooLarge {
        /// Its length, bytes.
        len: usize,
        /// The bound, bytes.
        max: usize,
    },
    /// Something of what the store holds is not what was written.
    #[error(transparent)]
    Damage(#[from] Box<Damage>),
    /// No space is left. Every snapshot that was complete before is intact.
    #[error("no space is left for {file}")]
    DiskFull {
        /// The file that was to grow.
        file: PathBuf,
    },
    /// The system refuses.
    #[error("{doing} {file}: {source}")]
    Io {
        /// What was under way.
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
    /// sled refuses.
    #[error("the index {file}: {source}")]
    Index {
        /// The index's directory.
        file: PathBuf,
        /// sled's word for it.
        source: sled::Error,
    },
    /// An earlier write failed in a way that leaves the disk's content unknown.
    #[error("{file} could not be made durable earlier, so nothing more is written")]
    Broken {
        /// The file.
        file: PathBuf,
    },
}

impl StoreError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        Some(match self {
            StoreError::NoStore { .. } => "snapshots are made by `record --out` and by nodes with `--store`",
            StoreError::InUse { .. } => "wait for the other process, or stop it; one process writes a store",
            StoreError::NoSnapshot { .. } => "take the nearest one before it",
            StoreError::Damage(damage) => return damage.hint(),
            StoreError::DiskFull { .. } => {
                "free space on this file system; every snapshot that was complete before is intact"
            }
            StoreError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => "snapshots are accessible to the user who made them only",
                io::ErrorKind::ReadOnlyFilesystem => "copy the store to a file system that can be written",
                _ => return None,
            },
            StoreError::Index { .. } => {
                "remove the index directory: it is rebuilt from the packs when the store is opened"
            }
            StoreError::Broken { .. } => "check the disk, and open the store anew",
            _ => return None,
        })
    }

    /// An error of the system, with the cases that have a remedy told apart.
    pub(super) fn io(doing: &'static str, file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let file = file.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull { file },
            _ => StoreError::Io { doing, file, source },
        }
    }
}
