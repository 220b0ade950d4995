//! The side that has the content: answers questions about a state that it retains.

use std::sync::Arc;

use echovisor_event::{
    Digest, Position,
    limits::{ASK_MAX, PAGE_SIZE},
};
use echovisor_machine::MachineState;
use zstd::bulk::Compressor;

use super::Ask;
use crate::{capture::Capture, digest::PageDigests};

/// A state at a position, apart from the machine that runs on, for those who lack it.
pub struct Source {
    capture: Arc<Capture>,
    digests: PageDigests,
    compressor: Compressor<'static>,
    pages: Vec<u8>,
}

/// A question that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It names no level, or no node or page of it, that there is.
    #[error("there is no node {number} on level {level} of the page tree")]
    Unknown {
        /// The level.
        level: u8,
        /// The node or page.
        number: u32,
    },
    /// It names too many.
    #[error("{count} nodes of level {level} in one question")]
    TooMany {
        /// The level.
        level: u8,
        /// How many.
        count: usize,
    },
    /// The pages could not be compressed.
    #[error("pages could not be compressed: {0}")]
    Compress(String),
}

impl Source {
    /// Offers a complete capture. Reads all of it, which takes its time.
    #[must_use]
    pub fn new(capture: Arc<Capture>) -> Source {
        let digests = capture.page_digests();
        let compressor = Compressor::new(1).expect("a level that zstd has");
        Source { capture, digests, compressor, pages: Vec::new() }
    }

    /// Where the state was taken.
    #[must_use]
    pub fn position(&self) -> Position {
        self.capture.position()
    }

    /// The state besides RAM.
    #[must_use]
    pub fn state(&self) -> &MachineState {
        self.capture.state()
    }

    /// Size of RAM, bytes.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        self.capture.memory_size()
    }

    /// The digest that stands for all of RAM.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.digests.root()
    }

    /// The digest of the whole state.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digests.state_digest(self.state())
    }

    /// The bytes of the answer to a question from outside: see [`Answer`](super::Answer).
    ///
    /// # Errors
    /// If it asks for more than there is.
    pub fn answer(&mut self, ask: &Ask) -> Result<Vec<u8>, AskError> {
        let level = ask.level;
        if ask.numbers.len() > ASK_MAX {
            return Err(AskError::TooMany { level, count: ask.numbers.len() });
        }
        let height = self.digests.height();
        let count = if usize::from(level) < height { self.digests.level(level.into()).len() } else { 0 };
        if let Some(number) = ask.numbers.iter().find(|number| **number as usize >= count) {
            return Err(AskError::Unknown { level, number: *number });
        }
        if level > 0 {
            let below = self.digests.level(usize::from(level) - 1);
            let children = |number: &u32| &below[self.digests.children(level.into(), *number as usize)];
            return Ok(ask.numbers.iter().flat_map(children).flat_map(|child| child.0).collect());
        }
        let mut page = [0; PAGE_SIZE];
        self.pages.clear();
        for number in &ask.numbers {
            self.capture.read_page(*number as usize, &mut page);
            self.pages.extend_from_slice(&page);
        }
        self.compressor.compress(&self.pages).map_err(|error| AskError::Compress(error.to_string()))
    }
}
