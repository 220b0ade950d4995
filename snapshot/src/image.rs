//! The image of a whole state, as one piece.
//!
//! `docs/formats/image.md` describes the bytes.

use echovisor_event::{Digest, Position, limits::PAGE_SIZE};
use echovisor_machine::{
    Machine, MachineConfig, MachineState, Memory, MemoryError,
    cpu::{Cpu, CpuError},
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    capture::Capture,
    digest::{is_zero, state_digest},
    store::StoreError,
};

/// Version of the image's format.
pub const IMAGE_VERSION: u32 = 1;

/// `"ECHOIMG\n"`.
const MAGIC: [u8; 8] = *b"ECHOIMG\n";

/// Magic, version, and the length of the body once decompressed.
const PREFIX: usize = 8 + 4 + 8;

/// log2 of the window of the compressed stream, bytes (512 KiB): what level 1 uses by itself, pinned so that a reader knows
/// the memory that a foreign image can ask for.
const WINDOW_LOG: u32 = 19;

/// What an image may hold besides pages, bytes: processor and devices.
const STATE_MAX: u64 = 1 << 20;

/// Longest body, bytes: what the relative pointers in it reach. A guest may use more memory than that; its snapshots have no such
/// bound.
const BODY_MAX: u64 = i32::MAX as u64;

/// A machine's whole state at a boundary: processor, devices, and every page that is not zero.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Image {
    /// Processor, devices, clock and position.
    pub state: MachineState,
    /// Size of RAM, bytes.
    pub memory_size: u64,
    /// The state's digest.
    pub digest: Digest,
    /// Page numbers, rising.
    numbers: Vec<u32>,
    /// Their content, one after the other.
    pages: Vec<u8>,
}

/// Why bytes are no image, or no state of this machine.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bytes are not an image.
    #[error("not a state image: it does not begin with its magic number")]
    Magic,
    /// The image is of another version.
    #[error("a state image of version {found}; this program knows version {IMAGE_VERSION}")]
    Version {
        /// The version it has.
        found: u32,
    },
    /// It is, or says that it is, larger than an image can be.
    #[error("a state image of {size} bytes: it can have {BODY_MAX}")]
    TooLarge {
        /// Its bytes.
        size: u64,
    },
    /// The bytes do not decompress to what they announce.
    #[error("the state image is damaged: {0}")]
    Damaged(String),
    /// The restored state has another digest than the one in the image.
    #[error("the state image's content has digest {found}, its header says {expected}")]
    Digest {
        /// What the header says.
        expected: Digest,
        /// What the content has.
        found: Digest,
    },
}

/// Why an image makes no machine.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The image is damaged or of another machine.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host gives no memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The host gives no processor.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The machine refuses the state.
    #[error(transparent)]
    Machine(#[from] echovisor_machine::RestoreError),
}

impl Image {
    /// Takes the image of a state; the guest must not run meanwhile.
    #[must_use]
    pub fn capture(memory: &Memory, state: MachineState) -> Image {
        let (mut numbers, mut pages) = (Vec::new(), Vec::new());
        let mut page = [0; PAGE_SIZE];
        for index in 0..memory.pages() {
            memory.read_page(index, &mut page);
            if !is_zero(&page) {
                numbers.push(index as u32);
                pages.extend_from_slice(&page);
            }
        }
        let digest = state_digest(memory, &state);
        Image { state, memory_size: memory.size(), digest, numbers, pages }
    }

    /// The image of a state that was captured.
    ///
    /// # Panics
    /// If the capture is not complete.
    #[must_use]
    pub fn of(capture: &Capture) -> Image {
        assert!(capture.is_complete(), "an image is all of a state");
        let (mut numbers, mut pages) = (Vec::new(), Vec::new());
        let mut page = [0; PAGE_SIZE];
        for index in capture.pages().iter() {
            capture.read_page(index, &mut page);
            numbers.push(index as u32);
            pages.extend_from_slice(&page);
        }
        let state = capture.state().clone();
        let digest = capture.page_digests().state_digest(&state);
        Image { state, memory_size: capture.memory_size(), digest, numbers, pages }
    }

    /// Where the state was taken.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// Fills zeroed memory with the image's pages and checks the digest of the result.
    ///
    /// # Errors
    /// If the pages do not fit or the digest differs.
    pub fn fill(&self, memory: &Memory) -> Result<(), ImageError> {
        if memory.size() != self.memory_size {
            let (ours, theirs) = (memory.size(), self.memory_size);
            return Err(ImageError::Damaged(format!("it is of {theirs} bytes of RAM, not {ours}")));
        }
        let (pages, rest) = self.pages.as_chunks::<PAGE_SIZE>();
        if !rest.is_empty() || pages.len() != self.numbers.len() {
            return Err(ImageError::Damaged("its page list and its pages do not match".into()));
        }
        for (number, page) in self.numbers.iter().zip(pages) {
            if *number as usize >= memory.pages() {
                return Err(ImageError::Damaged(format!("page {number} lies outside of RAM")));
            }
            memory.write_page(*number as usize, page);
        }
        let found = state_digest(memory, &self.state);
        if found == self.digest { Ok(()) } else { Err(ImageError::Digest { expected: self.digest, found }) }
    }

    /// Builds a machine in this state: in new memory, with the processor that `cpu` makes for it.
    ///
    /// # Errors
    /// If the image is not of a machine with this configuration, damaged, or refused by the processor.
    pub fn restore<C: Cpu>(
        &self,
        config: &MachineConfig,
        cpu: impl FnOnce(&Memory) -> Result<C, CpuError>,
    ) -> Result<Machine<C>, RestoreError> {
        let memory = Memory::new(config.memory)?;
        self.fill(&memory)?;
        let cpu = cpu(&memory)?;
        Ok(Machine::restore(cpu, memory, &config.devices(), &self.state)?)
    }

    /// The image as bytes, compressed.
    ///
    /// # Errors
    /// If it is too large for that.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ImageError> {
        let size = (self.pages.len() + self.numbers.len() * size_of::<u32>()) as u64 + STATE_MAX;
        if size > BODY_MAX {
            return Err(ImageError::TooLarge { size });
        }
        let body = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("plain data serialises");
        let mut bytes = Vec::with_capacity(PREFIX + body.len() / 4);
        bytes.extend(MAGIC);
        bytes.extend(IMAGE_VERSION.to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        compress(&body, &mut bytes).expect("compressing into memory");
        Ok(bytes)
    }

    /// Reads an image that came from outside.
    ///
    /// # Errors
    /// If it is none, of another version, too large or damaged. What it says of the machine is only checked when it is
    /// restored.
    pub fn from_bytes(bytes: &[u8]) -> Result<Image, ImageError> {
        let (prefix, compressed) = bytes.split_at_checked(PREFIX).ok_or(ImageError::Magic)?;
        if prefix[..8] != MAGIC {
            return Err(ImageError::Magic);
        }
        let version = u32::from_le_bytes(prefix[8..12].try_into().expect("four bytes"));
        if version != IMAGE_VERSION {
            return Err(ImageError::Version { found: version });
        }
        let size = u64::from_le_bytes(prefix[12..].try_into().expect("eight bytes"));
        if size > BODY_MAX {
            return Err(ImageError::TooLarge { size });
        }
        // The announced size is a bound, not a reason to allocate: memory is taken for what really comes out.
        let mut body = rkyv::util::AlignedVec::<16>::new();
        let mut decoder = zstd::stream::read::Decoder::new(compressed).map_err(damaged)?;
        decoder.window_log_max(WINDOW_LOG).map_err(damaged)?;
        body.extend_from_reader(&mut std::io::Read::take(&mut decoder, size + 1)).map_err(damaged)?;
        if body.len() as u64 != size {
            return Err(ImageError::Damaged(format!("{} bytes instead of {size}", body.len())));
        }
        rkyv::from_bytes::<Image, rkyv::rancor::Error>(&body).map_err(damaged)
    }
}

fn compress(body: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut encoder = zstd::stream::Encoder::new(out, 1)?;
    encoder.window_log(WINDOW_LOG)?;
    std::io::Write::write_all(&mut encoder, body)?;
    encoder.finish().map(drop)
}

fn damaged(error: impl std::fmt::Display) -> ImageError {
    ImageError::Damaged(error.to_string())
}
