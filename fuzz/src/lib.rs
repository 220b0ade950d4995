//! What the fuzz targets share: how an input is cut into parts, and the layers around a format's inside.
//!
//! A hash or a compressed stream turns away nearly every mutation before the code behind it is reached. So the targets take
//! what stands *inside* as their input, and put the layers around it themselves, as docs/formats/ tells them.

pub mod guest;
pub mod stored;

use rkyv::rancor;

/// Cuts an input into parts: `len u16 LE | bytes`, the last one as long as there are bytes.
pub fn parts(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = data.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (part, rest) = rest.split_at(len);
        data = rest;
        Some(part)
    })
}

/// The inverse of [`parts`]: for the seeds.
#[must_use]
pub fn join<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend((part.len() as u16).to_le_bytes());
        out.extend(part);
    }
    out
}

/// A batch before compression, with whatever stands in its columns (docs/formats/log.md).
#[derive(rkyv::Archive, rkyv::Serialize, Default)]
pub struct Columns {
    /// The columns in the order of the format.
    pub columns: [Vec<u8>; Columns::COUNT],
}

impl Columns {
    /// Columns of a batch.
    pub const COUNT: usize = 9;

    /// As the batch lies archived.
    #[must_use]
    pub fn archived(&self) -> Vec<u8> {
        rkyv::to_bytes::<rancor::Panic>(self).expect("bytes are archived into memory").into_vec()
    }
}

/// The compressed stream of a segment: each body is flushed, none ends it.
pub struct Stream(zstd::stream::raw::Encoder<'static>);

impl Stream {
    /// A stream at the beginning of a segment.
    #[must_use]
    pub fn new() -> Stream {
        let mut encoder = zstd::stream::raw::Encoder::new(1).expect("memory for a compressor");
        encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(19)).expect("the format's window");
        Stream(encoder)
    }

    /// The body in which `raw` stands.
    pub fn body(&mut self, raw: &[u8]) -> Vec<u8> {
        use zstd::stream::raw::{InBuffer, Operation, OutBuffer};
        let mut out = vec![0; zstd::zstd_safe::compress_bound(raw.len()) + 64];
        let mut output = OutBuffer::around(&mut out[..]);
        let mut input = InBuffer::around(raw);
        while input.pos() < raw.len() {
            self.0.run(&mut input, &mut output).expect("room for what does not compress");
        }
        while self.0.flush(&mut output).expect("room for what does not compress") > 0 {}
        let len = output.pos();
        out.truncate(len);
        out
    }
}

impl Default for Stream {
    fn default() -> Stream {
        Stream::new()
    }
}

/// A small structure of a recording with its label and hash (docs/formats/log.md).
#[must_use]
pub fn envelope(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    labelled(magic, echovisor_log::limits::VERSION, body)
}

/// The same of another version: a manifest of a page store has it too (docs/formats/snapshot.md).
#[must_use]
pub fn labelled(magic: &[u8; 8], version: u16, body: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(version.to_le_bytes());
    out.extend([0; 2]);
    out.extend((body.len() as u32).to_le_bytes());
    let hash = blake3::Hasher::new().update(&out).update(body).finalize();
    out.extend(hash.as_bytes());
    out.extend(body);
    out
}

/// A record of a segment's file with its hashes; `flags` are those of its length (docs/formats/log.md).
#[must_use]
pub fn record(flags: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32 | flags).to_le_bytes();
    let mut out = len.to_vec();
    out.extend(&blake3::hash(&len).as_bytes()[..4]);
    out.extend(&blake3::Hasher::new().update(&len).update(body).finalize().as_bytes()[..16]);
    out.extend(body);
    out
}
