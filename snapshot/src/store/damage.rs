//! What of a store is not what was written.

use std::{fmt, io, ops::Range, path::PathBuf};

use echovisor_event::{Digest, Position};

/// A part of a store that cannot be used. Everything that does not need it stays usable.
#[derive(Debug, thiserror::Error)]
pub struct Damage {
    /// The file; of an object that is nowhere, the directory of the packs.
    pub file: PathBuf,
    /// Where the damaged record begins, bytes from the beginning of the file.
    pub offset: u64,
    /// What is damaged.
    pub part: Part,
    /// What is wrong with it.
    pub kind: DamageKind,
    /// The snapshots that need it, in order. None: nothing of value is lost.
    pub snapshots: Vec<Position>,
    /// The pages of those snapshots that cannot be read because of it. A state's damage concerns no page.
    pub pages: Vec<Range<usize>>,
}

/// A part of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A snapshot's manifest.
    Manifest,
    /// The beginning of a pack.
    Pack,
    /// Bytes of a pack in which no record can be recognised.
    Record,
    /// A page of a guest.
    Page(Digest),
    /// A node of a digest tree.
    Node(Digest),
    /// The state of a processor and its devices.
    State(Digest),
}

/// What is wrong with a part of a store.
#[derive(Debug, thiserror::Error)]
pub enum DamageKind {
    /// The file is gone.
    #[error("the file is missing")]
    Missing,
    /// No pack has it.
    #[error("no pack has it")]
    Absent,
    /// The file ends too early.
    #[error("truncated: {missing} bytes or more are missing")]
    Truncated {
        /// Bytes that are missing at least.
        missing: u64,
    },
    /// The bytes are not those that were written.
    #[error("changed: the {0} is not what was written")]
    Changed(&'static str),
    /// It was written by another version.
    #[error("it has version {found}, this program reads version {}", super::STORE_VERSION)]
    Version {
        /// The version it has.
        found: u16,
    },
    /// The bytes are those that were written, but say what cannot be.
    #[error("it says what cannot be: {0}")]
    Content(&'static str),
    /// The disk did not give the bytes.
    #[error("reading failed: {0}")]
    Io(io::Error),
}

impl DamageKind {
    /// What an error of the system says of a file.
    pub(super) fn of(error: io::Error) -> DamageKind {
        match error.kind() {
            io::ErrorKind::NotFound => DamageKind::Missing,
            _ => DamageKind::Io(error),
        }
    }
}

impl Damage {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        Some(match self.kind {
            DamageKind::Io(_) => "check the disk, and copy what can still be read",
            DamageKind::Version { .. } => "use the release that wrote it",
            _ if self.snapshots.is_empty() => "no snapshot needs what is damaged",
            _ => "use another snapshot; a copy of this file may be whole",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: byte {}: {}: {}", self.file.display(), self.offset, self.part, self.kind)?;
        if self.snapshots.is_empty() {
            return f.write_str("; no snapshot needs it");
        }
        list(f, "; snapshots at positions ", &self.snapshots)?;
        if self.pages.is_empty() {
            return Ok(());
        }
        let pages = self.pages.iter().map(|pages| match pages.len() {
            1 => pages.start.to_string(),
            _ => format!("{}-{}", pages.start, pages.end.saturating_sub(1)),
        });
        list(f, "; pages ", &pages.collect::<Vec<_>>())
    }
}

/// Names the first of them, and says how many more there are.
fn list(f: &mut fmt::Formatter<'_>, title: &str, items: &[impl fmt::Display]) -> fmt::Result {
    const NAMED: usize = 8;
    f.write_str(title)?;
    for (index, item) in items.iter().take(NAMED).enumerate() {
        write!(f, "{}{item}", if index == 0 { "" } else { ", " })?;
    }
    match items.len().saturating_sub(NAMED) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Manifest => f.write_str("the manifest"),
            Part::Pack => f.write_str("the file's header"),
            Part::Record => f.write_str("a record"),
            Part::Page(digest) => write!(f, "page {digest}"),
            Part::Node(digest) => write!(f, "tree node {digest}"),
            Part::State(digest) => write!(f, "machine state {digest}"),
        }
    }
}
