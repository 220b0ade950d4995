//! What can go wrong with an arbiter.

use std::{io, path::PathBuf};

/// An arbiter that could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ArbiterError {
    /// No arbiter has such an address.
    #[error("`{address}` is not the address of an arbiter")]
    Address {
        /// What was given.
        address: String,
    },
    /// A kind of arbiter that does not exist yet.
    #[error("`{address}`: this kind of arbiter is not supported yet")]
    Unsupported {
        /// What was given.
        address: String,
    },
    /// The system refuses.
    #[error("arbiter: {doing} {file}: {source}")]
    Io {
        /// What was under way.
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
    /// Another node has been changing the record for so long that it may have been stopped while it did.
    #[error("arbiter: {file} is being changed by another node")]
    Busy {
        /// The file.
        file: PathBuf,
    },
    /// There is no record where there was one.
    #[error("arbiter: the record is gone")]
    Missing,
    /// The file holds no record.
    #[error("arbiter: {file} is not a record: {problem}")]
    Invalid {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl ArbiterError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        Some(match self {
            ArbiterError::Address { .. } => "write file:PATH, with a path that both nodes see",
            ArbiterError::Unsupported { .. } => "use file:PATH on a file system that both nodes see",
            ArbiterError::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "the directory of the arbiter's file must exist",
                io::ErrorKind::PermissionDenied => {
                    "both nodes must be able to write the file and its directory"
                }
                io::ErrorKind::StorageFull => "free space on the file system of the arbiter's file",
                _ => return None,
            },
            ArbiterError::Busy { .. } => {
                "see whether a node of this virtual machine is stopped, and let it go on or end it"
            }
            ArbiterError::Missing => {
                "bring the arbiter's file back; only if no node runs this virtual machine may a start make a new one"
            }
            ArbiterError::Invalid { .. } => {
                "make sure that no node runs this virtual machine, then remove the file: the next start makes a new one"
            }
        })
    }
}
