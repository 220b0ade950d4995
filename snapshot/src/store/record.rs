//! An object as it stands in a pack: `kind u8 | coding u8 | 0 [2] | len u32 | digest [32] | check [8] | body`, numbers little
//! endian.
//!
//! The digest is the object's address, and proves the body. The check covers the bytes before it, so that a flipped bit in
//! the length is not taken for a file that ends too early, and so that a record can be found again behind damage.

use std::io;

use echovisor_event::{Digest, limits::PAGE_SIZE};
use zstd::bulk::{Compressor, Decompressor};

use super::damage::{DamageKind, Part};
use crate::digest::{FAN_OUT, hash, node_of};

/// Bytes of a record before its body.
pub(super) const PREFIX: usize = 48;

/// Bytes before the check.
const LABEL: usize = 40;

/// The longest machine state, bytes: registers and devices, with ample room.
pub(super) const STATE_MAX: usize = 1 << 20;

/// The longest record, bytes: a body is no longer than the content.
pub(super) const RECORD_MAX: usize = PREFIX + STATE_MAX;

/// Speed counts more than size: it is done while a guest runs.
const LEVEL: i32 = 1;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A page of a guest.
    Page = 1,
    /// A node of a digest tree: its children's digests.
    Node = 2,
    /// A processor and its devices.
    State = 3,
}

impl Kind {
    fn of(code: u8) -> Option<Kind> {
        [Kind::Page, Kind::Node, Kind::State].into_iter().find(|kind| *kind as u8 == code)
    }

    /// The longest content.
    fn longest(self) -> usize {
        match self {
            Kind::Page => PAGE_SIZE,
            Kind::Node => FAN_OUT * size_of::<Digest>(),
            Kind::State => STATE_MAX,
        }
    }

    /// The address of a content. Each kind has a hash of its own, so that no object can stand for one of another kind.
    pub(super) fn address(self, content: &[u8]) -> Digest {
        match self {
            Kind::Page => hash(content),
            Kind::Node => node_of(content),
            Kind::State => Digest(blake3::derive_key("echovisor machine state 1", content)),
        }
    }

    /// The object with this address, for those who are told of it.
    pub(super) fn part(self, digest: Digest) -> Part {
        match self {
            Kind::Page => Part::Page(digest),
            Kind::Node => Part::Node(digest),
            Kind::State => Part::State(digest),
        }
    }
}

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) kind: Kind,
    compressed: bool,
    /// Length of the body, bytes.
    pub(super) len: u32,
    pub(super) digest: Digest,
}

impl Prefix {
    fn to_bytes(self) -> [u8; PREFIX] {
        let mut bytes = [0; PREFIX];
        bytes[0] = self.kind as u8;
        bytes[1] = self.compressed.into();
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..LABEL].copy_from_slice(&self.digest.0);
        let check = hash(&bytes[..LABEL]);
        bytes[LABEL..].copy_from_slice(&check.0[..PREFIX - LABEL]);
        bytes
    }

    /// Reads what stands at the front of `bytes`; `None` if that is not what was ever written.
    pub(super) fn read(bytes: &[u8]) -> Option<Prefix> {
        let bytes = bytes.first_chunk::<PREFIX>()?;
        // Cheap tests first: after damage this looks at every byte.
        let kind = Kind::of(bytes[0])?;
        let len = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let digest = Digest(bytes[8..LABEL].try_into().ok()?);
        let prefix = Prefix { kind, compressed: bytes[1] == 1, len, digest };
        (len as usize <= kind.longest() && prefix.to_bytes() == *bytes).then_some(prefix)
    }

    /// Length of the whole record, bytes.
    pub(super) fn record_len(&self) -> usize {
        PREFIX + self.len as usize
    }
}

/// Makes records.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    body: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Packer> {
        Ok(Packer { compressor: Compressor::new(LEVEL)?, body: Vec::new() })
    }

    /// Appends the record of an object to `out`, and returns the length of its body.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, kind: Kind, digest: Digest, content: &[u8]) -> u32 {
        self.body.clear();
        self.body.reserve(zstd::zstd_safe::compress_bound(content.len()));
        let done = self.compressor.compress_to_buffer(content, &mut self.body);
        // What does not shrink stands as it is; so does, if that ever happens, what zstd does not take.
        let compressed = done.is_ok_and(|len| len < content.len());
        let body = if compressed { &self.body[..] } else { content };
        let len = body.len() as u32;
        out.extend_from_slice(&Prefix { kind, compressed, len, digest }.to_bytes());
        out.extend_from_slice(body);
        len
    }
}

/// Reads records.
pub(super) struct Unpacker {
    decompressor: Decompressor<'static>,
    content: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new() -> io::Result<Unpacker> {
        Ok(Unpacker { decompressor: Decompressor::new()?, content: Vec::new() })
    }

    /// The last content that was opened.
    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    /// The content of an object, which is what its address says, and may be an object of its kind.
    pub(super) fn open(&mut self, prefix: &Prefix, body: &[u8]) -> Result<&[u8], DamageKind> {
        self.content.clear();
        if prefix.compressed {
            self.content.reserve(prefix.kind.longest());
            let done = self.decompressor.decompress_to_buffer(body, &mut self.content);
            done.map_err(|_| DamageKind::Changed("content"))?;
        } else {
            self.content.extend_from_slice(body);
        }
        if prefix.kind.address(&self.content) != prefix.digest {
            return Err(DamageKind::Changed("content"));
        }
        let len = self.content.len();
        let fits = match prefix.kind {
            Kind::Page => len == PAGE_SIZE,
            Kind::Node => (1..=FAN_OUT).any(|children| len == children * size_of::<Digest>()),
            Kind::State => len <= STATE_MAX,
        };
        if fits { Ok(&self.content) } else { Err(DamageKind::Content("an object of another length")) }
    }
}

/// The children's digests in the content of a node.
pub(super) fn children(content: &[u8]) -> impl Iterator<Item = Digest> + '_ {
    content.as_chunks::<32>().0.iter().map(|digest| Digest(*digest))
}
