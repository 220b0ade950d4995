//! How a small structure stands in a file: `magic [8] | version u16 | 0 u16 | len u32 | blake3 [32] | body`, numbers little
//! endian. The hash covers everything before and after itself.

use std::io::{self, Read};

use rkyv::util::AlignedVec;

use crate::limits::VERSION;

/// Bytes before the body.
pub(crate) const PREFIX: usize = 48;

/// Bytes before the hash.
const LABEL: usize = 16;

/// What is wrong with an envelope.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("the file ends before it is complete")]
    CutOff,
    #[error("it does not begin with {:?}", String::from_utf8_lossy(.expected))]
    Magic { expected: [u8; 8] },
    #[error("it has version {found}, this program reads version {VERSION}")]
    Version { found: u16 },
    #[error("it claims {len} bytes; at most {max} are possible")]
    TooLong { len: usize, max: usize },
    #[error("its bytes have changed: their hash is another")]
    Changed,
    #[error(transparent)]
    Io(io::Error),
}

/// Wraps a body.
pub(crate) fn seal(magic: [u8; 8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + body.len());
    out.extend_from_slice(&magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let hash = hash(&out, body);
    out.extend_from_slice(hash.as_bytes());
    out.extend_from_slice(body);
    out
}

/// Reads and checks an envelope from the front of `file`, and returns the body, aligned for rkyv.
pub(crate) fn open(magic: [u8; 8], max: usize, file: &mut impl Read) -> Result<AlignedVec, EnvelopeError> {
    let mut prefix = [0; PREFIX];
    read(file, &mut prefix)?;
    let (label, expected) = prefix.split_at(LABEL);
    if label[..8] != magic {
        return Err(EnvelopeError::Magic { expected: magic });
    }
    let found = u16::from_le_bytes([label[8], label[9]]);
    if found != VERSION {
        return Err(EnvelopeError::Version { found });
    }
    let len = u32::from_le_bytes([label[12], label[13], label[14], label[15]]) as usize;
    if len > max {
        return Err(EnvelopeError::TooLong { len, max });
    }
    let mut body = AlignedVec::with_capacity(len);
    body.resize(len, 0);
    read(file, &mut body)?;
    if hash(label, &body).as_bytes() != expected {
        return Err(EnvelopeError::Changed);
    }
    Ok(body)
}

fn hash(label: &[u8], body: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(label).update(body).finalize()
}

fn read(file: &mut impl Read, out: &mut [u8]) -> Result<(), EnvelopeError> {
    file.read_exact(out).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => EnvelopeError::CutOff,
        _ => EnvelopeError::Io(error),
    })
}
