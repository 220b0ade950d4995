//! Making one memory's content another's, by sending only what differs.
//!
//! The side that lacks something walks the other's page tree from the root: it compares the digests of the nodes' children with
//! those of its own memory, and asks for the pages behind those that differ. Whatever is equal, zero pages of a new memory
//! among it, is never sent, and what is equal in several pages is sent once. `docs/formats/link.md` describes the bytes.

mod difference;
mod fields;
mod source;
mod walk;

pub use difference::{Differences, PageDifference};
pub use fields::{FieldDifference, field_differences};
pub use source::{AskError, Source};
pub use walk::{Walk, WalkError};

use echovisor_event::limits::PAGE_SIZE;

/// What one question asks for: the digests of the children of some nodes, or some pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The nodes' level in the tree; 0 are the pages themselves.
    pub level: u8,
    /// Which of them; at most [`ASK_MAX`](echovisor_event::limits::ASK_MAX).
    pub numbers: Vec<u32>,
    /// Pages that will still be asked for, these included, as far as that is known. For whoever shows progress.
    pub left: u32,
}

/// The answer to an [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The digests of the nodes' children, one after the other.
    Nodes(&'a [u8]),
    /// The pages, one after the other, compressed.
    Pages(&'a [u8]),
}

/// Reads the `count` pages of an answer.
///
/// # Errors
/// If they do not decompress to as many.
pub fn unpack(bytes: &[u8], count: usize) -> std::io::Result<Vec<[u8; PAGE_SIZE]>> {
    let raw = zstd::bulk::decompress(bytes, count * PAGE_SIZE)?;
    let (pages, rest) = raw.as_chunks();
    if pages.len() == count && rest.is_empty() {
        Ok(pages.to_vec())
    } else {
        Err(std::io::ErrorKind::InvalidData.into())
    }
}
