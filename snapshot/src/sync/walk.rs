//! The side that lacks something: walks the other's page tree and fills its own memory.

use std::collections::{HashMap, VecDeque};

use echovisor_event::{
    Digest,
    limits::{ASK_MAX, PAGE_SIZE},
};
use echovisor_machine::{Memory, PageSet};

use super::{Answer, Ask, Differences, unpack};
use crate::digest::{self, PageDigests};

/// Questions that may be under way: half a megabyte of pages at most, so that what comes between the answers does not wait
/// long, and a link with a long way is still used.
const UNDER_WAY: usize = 8;

/// A walk through the page tree of a memory elsewhere, whose content `memory` is to have.
///
/// Every answer is checked against the root by the digests on the way. What has been written stays written, so that a walk
/// which is broken off leaves less to the next one.
#[derive(Debug)]
pub struct Walk {
    memory: Memory,
    /// Of `memory` as it was at the start.
    digests: PageDigests,
    /// Pages that were written since.
    written: PageSet,
    /// The level that is asked for now.
    level: usize,
    /// Its nodes or pages that differ and were not asked for yet, with the digests that they shall have.
    wanted: VecDeque<(u32, Digest)>,
    /// Those that were asked for, question by question.
    asked: VecDeque<Vec<(u32, Digest)>>,
    /// Those of the level below that differ.
    below: VecDeque<(u32, Digest)>,
    /// Where the content of the pages that are asked for belongs: it may be in several places, and comes once.
    places: HashMap<Digest, Vec<u32>>,
    differences: Option<Differences>,
    fetched: u64,
}

/// An answer that does not fit to its question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// Nothing was asked, or something else.
    #[error("{0} of the state that nobody asked for")]
    Unasked(&'static str),
    /// The answer has not the length, or does not decompress to it.
    #[error("{what} of the state are damaged: {problem}")]
    Damaged {
        /// What.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The content is not the one that the digest above it stands for.
    #[error("{what} {number} of the state has digest {found}, not {expected}")]
    Digest {
        /// What.
        what: &'static str,
        /// Its number.
        number: u32,
        /// As the tree above says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
}

impl Walk {
    /// Begins a walk towards the memory whose tree has this `root`, from what `memory` holds, which `digests` are of. The
    /// memory must not be written by anybody else.
    #[must_use]
    pub fn new(memory: Memory, digests: PageDigests, root: Digest) -> Walk {
        let top = digests.height() - 1;
        let wanted = if digests.root() == root { VecDeque::new() } else { VecDeque::from([(0, root)]) };
        Walk {
            written: PageSet::none(memory.pages()),
            memory,
            digests,
            level: top,
            wanted,
            asked: VecDeque::new(),
            below: VecDeque::new(),
            places: HashMap::new(),
            differences: None,
            fetched: 0,
        }
    }

    /// Notes from now on in which bytes the memory differed.
    #[must_use]
    pub fn noting(mut self) -> Walk {
        self.differences = Some(Differences::default());
        self
    }

    /// The next question, if one may be asked before more answers have come.
    pub fn ask(&mut self) -> Option<Ask> {
        if self.wanted.is_empty() || self.asked.len() >= UNDER_WAY {
            return None;
        }
        let level = self.level as u8;
        let left = if self.level == 0 { self.left() } else { 0 };
        let count = self.wanted.len().min(ASK_MAX);
        let asked: Vec<_> = self.wanted.drain(..count).collect();
        let numbers = asked.iter().map(|(number, _)| *number).collect();
        self.asked.push_back(asked);
        Some(Ask { level, numbers, left })
    }

    /// Pages that are still to come, as far as that is known; equal ones count once when they are asked for.
    #[must_use]
    pub fn left(&self) -> u32 {
        let under_way: usize = self.asked.iter().map(Vec::len).sum();
        if self.level == 0 { (self.wanted.len() + under_way) as u32 } else { self.below.len() as u32 }
    }

    /// Pages that have come.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Whether the memory has the content that it was to have.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_empty() && self.below.is_empty()
    }

    /// Takes the answer to the oldest question.
    ///
    /// # Errors
    /// If it is none, or its content is not what the root stands for. The walk is of no use then.
    pub fn take(&mut self, answer: Answer<'_>) -> Result<(), WalkError> {
        match (answer, self.level) {
            (Answer::Nodes(_), 0) => Err(WalkError::Unasked("nodes")),
            (Answer::Nodes(bytes), _) => self.nodes(bytes),
            (Answer::Pages(bytes), 0) => self.pages(bytes),
            (Answer::Pages(_), _) => Err(WalkError::Unasked("pages")),
        }?;
        if self.wanted.is_empty() && self.asked.is_empty() && self.level > 0 {
            self.level -= 1;
            self.wanted = std::mem::take(&mut self.below);
            if self.level == 0 {
                self.share();
            }
        }
        Ok(())
    }

    /// Asks for no content twice, nor for what a page here has under another number, nor for zeros.
    fn share(&mut self) {
        let mut places: HashMap<Digest, Vec<u32>> = HashMap::with_capacity(self.wanted.len());
        for (number, digest) in &self.wanted {
            places.entry(*digest).or_default().push(*number);
        }
        let zeros = places.remove(&digest::of_zero_page()).unwrap_or_default();
        let mut page = [0; PAGE_SIZE];
        for number in 0..self.memory.pages() {
            let digest = self.digests.pages()[number];
            // What is written over by now is another content.
            if !self.written.contains(number)
                && let Some(places) = places.remove(&digest)
            {
                self.memory.read_page(number, &mut page);
                places.into_iter().for_each(|place| self.write(place as usize, &page));
            }
        }
        zeros.into_iter().for_each(|place| self.write(place as usize, &[0; PAGE_SIZE]));
        self.wanted.retain(|(number, digest)| places.get(digest).is_some_and(|places| places[0] == *number));
        self.places = places;
    }

    fn nodes(&mut self, bytes: &[u8]) -> Result<(), WalkError> {
        let asked = self.asked.pop_front().ok_or(WalkError::Unasked("nodes"))?;
        let (digests, rest) = bytes.as_chunks::<32>();
        let mut digests = digests.iter().map(|bytes| Digest(*bytes));
        let cut_off =
            || WalkError::Damaged { what: "nodes", problem: format!("they have {} bytes", bytes.len()) };
        for (number, expected) in asked {
            let places = self.digests.children(self.level, number as usize);
            let first = places.start as u32;
            let ours = &self.digests.level(self.level - 1)[places];
            let theirs: Vec<Digest> = digests.by_ref().take(ours.len()).collect();
            if theirs.len() != ours.len() {
                return Err(cut_off());
            }
            let found = digest::node(&theirs);
            if found != expected {
                return Err(WalkError::Digest { what: "node", number, expected, found });
            }
            let differ = (first..).zip(ours.iter().zip(&theirs)).filter(|(_, (ours, theirs))| ours != theirs);
            self.below.extend(differ.map(|(number, (_, theirs))| (number, *theirs)));
        }
        if digests.next().is_some() || !rest.is_empty() { Err(cut_off()) } else { Ok(()) }
    }

    fn pages(&mut self, bytes: &[u8]) -> Result<(), WalkError> {
        let asked = self.asked.pop_front().ok_or(WalkError::Unasked("pages"))?;
        let pages = unpack(bytes, asked.len())
            .map_err(|error| WalkError::Damaged { what: "pages", problem: error.to_string() })?;
        for ((number, expected), page) in asked.into_iter().zip(&pages) {
            let found = digest::hash(page);
            if found != expected {
                return Err(WalkError::Digest { what: "page", number, expected, found });
            }
            let places = self.places.remove(&expected).unwrap_or_else(|| vec![number]);
            places.into_iter().for_each(|place| self.write(place as usize, page));
            self.fetched += 1;
        }
        Ok(())
    }

    fn write(&mut self, number: usize, page: &[u8; PAGE_SIZE]) {
        if let Some(differences) = &mut self.differences {
            let mut before = [0; PAGE_SIZE];
            self.memory.read_page(number, &mut before);
            differences.note(number, page, &before);
        }
        self.memory.write_page(number, page);
        self.written.insert(number);
    }

    /// Ends the walk, complete or not: the memory, the digests of what it holds now, and in what it differed if that was noted.
    #[must_use]
    pub fn end(mut self) -> (Memory, PageDigests, Differences) {
        self.digests.update(&self.memory, &self.written);
        let mut differences = self.differences.unwrap_or_default();
        differences.sort();
        (self.memory, self.digests, differences)
    }
}
