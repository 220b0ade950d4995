//! What can be wrong with a recording.

use std::{io, path::PathBuf};

use echovisor_event::{Position, VmId};

use crate::DecodeError;

/// A recording that could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is a recording already.
    #[error("{dir} holds a recording already")]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// There is no recording.
    #[error("{dir} holds no recording")]
    NoRecording {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process has it open.
    #[error("{dir} is in use by another process")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The header file is not what it was.
    #[error("{file}: {problem}")]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file that says who writes the recording is not what it was.
    #[error("{file}: {problem}")]
    Writer {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The header's configuration is too long.
    #[error("a machine configuration of {len} bytes; at most {max} are allowed")]
    HeaderTooLong {
        /// Its length, bytes.
        len: usize,
        /// The bound, bytes.
        max: usize,
    },
    /// No space is left for the log. What was written before is intact.
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
    /// What is durable has been damaged, so the log can't be continued.
    #[error(transparent)]
    Damage(#[from] Box<Damage>),
    /// A segment or batch does not follow what is there.
    #[error("{what} is {found}, but the recording continues with {expected}")]
    OutOfOrder {
        /// Which property does not fit.
        what: &'static str,
        /// What must follow.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A batch before any segment.
    #[error("a batch was appended before a segment was begun")]
    NoSegment,
    /// No such segment.
    #[error("the recording has no segment {segment}")]
    UnknownSegment {
        /// Its number.
        segment: u64,
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
            StoreError::Exists { .. } => "choose another directory, or remove the old recording",
            StoreError::NoRecording { .. } => {
                "a recording is a directory made by `record --out` or `--store`"
            }
            StoreError::InUse { .. } => {
                "wait for the other process, or stop it; one process writes a recording"
            }
            StoreError::Header { .. } => {
                "the segments need it: restore this file from a copy, or read with the release that wrote it"
            }
            StoreError::Writer { .. } => {
                "replay does not need it; to go on with the guest, restore this file from a copy"
            }
            StoreError::DiskFull { .. } => {
                "free space on this file system; everything written so far is intact"
            }
            StoreError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => "a recording is accessible to the user who made it only",
                io::ErrorKind::ReadOnlyFilesystem => {
                    "copy the recording to a file system that can be written"
                }
                _ => return None,
            },
            StoreError::Index { .. } => {
                "remove the index directory: it is rebuilt from the segments when the recording is opened"
            }
            StoreError::Damage(damage) => return damage.hint(),
            StoreError::Broken { .. } => "check the disk, and open the recording anew",
            _ => return None,
        })
    }

    /// An error of the system, with the cases that have a remedy told apart.
    pub(crate) fn io(doing: &'static str, file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let file = file.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull { file },
            _ => StoreError::Io { doing, file, source },
        }
    }
}

/// A place from which a segment can't be read any further.
#[derive(Debug, thiserror::Error)]
#[error("{file}: byte {offset}: {kind}; intact before it: positions {first} to {last}, {batches} batches")]
pub struct Damage {
    /// The segment's file.
    pub file: PathBuf,
    /// The segment.
    pub segment: u64,
    /// Where the damaged record begins, bytes from the beginning of the file.
    pub offset: u64,
    /// What is wrong there.
    pub kind: DamageKind,
    /// Where the segment begins.
    pub first: Position,
    /// The last watermark before the damage: the segment can be replayed to here.
    pub last: Position,
    /// How many batches before the damage can be read.
    pub batches: u64,
}

/// What is wrong with a segment's file.
#[derive(Debug, thiserror::Error)]
pub enum DamageKind {
    /// The file is gone.
    #[error("the file is missing")]
    Missing,
    /// The beginning of the file.
    #[error("the file's header: {0}")]
    Header(String),
    /// The segment belongs to another virtual machine.
    #[error("the file belongs to virtual machine {found}, the recording to {expected}")]
    Foreign {
        /// The recording's.
        expected: VmId,
        /// The file's.
        found: VmId,
    },
    /// The file ends too early.
    #[error("truncated: {missing} bytes or more are missing")]
    Truncated {
        /// Bytes that are missing at least.
        missing: u64,
    },
    /// The bytes are not those that were written.
    #[error("changed: the {part} of the record is not what was written")]
    Changed {
        /// Which part's hash does not fit.
        part: &'static str,
    },
    /// The bytes are those that were written, but do not make a batch.
    #[error(transparent)]
    Decode(DecodeError),
    /// The end of the segment tells of another content.
    #[error("the segment's end does not fit what comes before it: {0}")]
    End(&'static str),
    /// The segment does not follow the one before it.
    #[error("the hash chain does not continue that of segment {previous}")]
    Chain {
        /// The segment before.
        previous: u64,
    },
    /// The disk did not give the bytes.
    #[error("reading failed: {0}")]
    Io(io::Error),
}

impl Damage {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        Some(match self.kind {
            DamageKind::Io(_) => "check the disk, and copy what can still be read",
            _ => {
                "replay up to the last intact position, or begin at a later segment; a copy of this file may be whole"
            }
        })
    }
}
