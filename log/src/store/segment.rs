//! A segment's file: an envelope with the segment's start, then records, at last the trailer.
//!
//! A record is `len u32 | check of len [4] | check of body [16] | body`. The length has a check of its own, so that a
//! flipped bit in it is not taken for a file that ends too early. The trailer is a record whose length has the top bit
//! set.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use echovisor_event::{Digest, Position, VmId};
use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use super::{
    envelope::{self, EnvelopeError},
    error::DamageKind,
};
use crate::{SegmentStart, limits::BODY_MAX};

const MAGIC: [u8; 8] = *b"ECHOSEGM";

/// Bytes of a record before its body.
pub(crate) const RECORD_PREFIX: usize = 24;

/// Marks the trailer, in its length.
const TRAILER: u32 = 1 << 31;

/// The first thing in a segment's file.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) vm: VmId,
    pub(crate) start: SegmentStart,
}

/// The last thing in a segment's file, once nothing more will come.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Number of the batch that follows.
    pub(crate) sequence: u64,
    /// The last watermark.
    pub(crate) position: Position,
    /// The hash chain after the last batch.
    pub(crate) chain: Digest,
    /// How many checkpoints the segment holds.
    pub(crate) checkpoints: u64,
}

impl FileHeader {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let body = rkyv::to_bytes::<rancor::Panic>(&self).expect("plain values serialize into memory");
        envelope::seal(MAGIC, &body)
    }
}

/// Appends a record to `out`.
pub(crate) fn put_record(out: &mut Vec<u8>, body: &[u8]) {
    put(out, body.len() as u32, body);
}

/// Appends the trailer to `out`.
pub(crate) fn put_trailer(out: &mut Vec<u8>, trailer: &Trailer) {
    let body = rkyv::to_bytes::<rancor::Panic>(trailer).expect("plain values serialize into memory");
    put(out, body.len() as u32 | TRAILER, &body);
}

fn put(out: &mut Vec<u8>, len: u32, body: &[u8]) {
    let len = len.to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&len_check(len));
    out.extend_from_slice(&body_check(len, body));
    out.extend_from_slice(body);
}

fn len_check(len: [u8; 4]) -> [u8; 4] {
    *blake3::hash(&len).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn body_check(len: [u8; 4], body: &[u8]) -> [u8; 16] {
    let hash = blake3::Hasher::new().update(&len).update(body).finalize();
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// What comes next in a file.
pub(crate) enum Found {
    /// A batch's body stands in [`SegmentFile::body`].
    Batch,
    /// The trailer.
    End(Trailer),
    /// The file ends after a whole record, without a trailer: it is still written, or its writer was stopped.
    Open,
}

/// A segment's file, read from its beginning.
pub(crate) struct SegmentFile {
    file: BufReader<File>,
    header: FileHeader,
    offset: u64,
    body: AlignedVec,
}

impl SegmentFile {
    pub(crate) fn open(path: &Path) -> Result<SegmentFile, DamageKind> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DamageKind::Missing,
            _ => DamageKind::Io(error),
        })?;
        let mut file = BufReader::with_capacity(256 << 10, file);
        let body =
            envelope::open(MAGIC, size_of::<ArchivedFileHeader>(), &mut file).map_err(
                |error| match error {
                    EnvelopeError::Io(error) => DamageKind::Io(error),
                    other => DamageKind::Header(other.to_string()),
                },
            )?;
        let header = rkyv::from_bytes::<FileHeader, rancor::Error>(&body);
        let header = header.map_err(|_| DamageKind::Header("it is not laid out as one".to_owned()))?;
        let offset = (envelope::PREFIX + body.len()) as u64;
        Ok(SegmentFile { file, header, offset, body: AlignedVec::new() })
    }

    pub(crate) fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Where the next record begins: all before it was good.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The last body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Reads the next record. After an error the offset is that of the damaged record.
    pub(crate) fn next(&mut self) -> Result<Found, DamageKind> {
        let mut prefix = [0; RECORD_PREFIX];
        match self.fill(&mut prefix)? {
            RECORD_PREFIX => {}
            0 => return Ok(Found::Open),
            got => {
                return Err(DamageKind::Truncated { missing: (RECORD_PREFIX - got) as u64 });
            }
        }
        let [len, found, ..] = *prefix.as_chunks().0 else { unreachable!("24 bytes hold two numbers") };
        if found != len_check(len) {
            return Err(DamageKind::Changed { part: "length" });
        }
        let number = u32::from_le_bytes(len);
        let size = (number & !TRAILER) as usize;
        if size > BODY_MAX {
            return Err(DamageKind::Changed { part: "length" });
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(size, 0);
        let got = self.fill(&mut body);
        self.body = body;
        let got = got?;
        if got < size {
            return Err(DamageKind::Truncated { missing: (size - got) as u64 });
        }
        if prefix[8..] != body_check(len, &self.body) {
            return Err(DamageKind::Changed { part: "body" });
        }
        let found = if number & TRAILER == 0 {
            Found::Batch
        } else {
            let trailer = rkyv::from_bytes::<Trailer, rancor::Error>(&self.body);
            Found::End(trailer.map_err(|_| DamageKind::End("it is not laid out as a trailer"))?)
        };
        self.offset += (RECORD_PREFIX + size) as u64;
        Ok(found)
    }

    /// Whether anything is left to read.
    pub(crate) fn is_at_end(&mut self) -> Result<bool, DamageKind> {
        Ok(self.fill(&mut [0])? == 0)
    }

    /// Reads as much of `out` as the file has.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, DamageKind> {
        let mut got = 0;
        while got < out.len() {
            match self.file.read(&mut out[got..]) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DamageKind::Io(error)),
            }
        }
        Ok(got)
    }
}
