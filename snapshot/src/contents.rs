//! The contents of pages, apart from the guest that they came from.

use echovisor_event::limits::PAGE_SIZE;
use echovisor_machine::{Memory, PageSet};

use crate::digest::is_zero;

type Page = [u8; PAGE_SIZE];

/// Pages that are taken from the host at a time.
const CHUNK: usize = 256;

/// Chunks that stay when what they hold is of no use any more.
const KEPT: usize = 8;

/// Where a page is that is not held.
const NOWHERE: u32 = 0;
/// Where a page is that is held and zero.
const ZERO: u32 = u32::MAX;

/// The contents of some of a guest's pages. It costs memory for those that are not zero, and four bytes for each page of the
/// guest near one that is held.
#[derive(Debug)]
pub(crate) struct Contents {
    /// By page: [`NOWHERE`], [`ZERO`], or one more than the place.
    places: Vec<u32>,
    chunks: Vec<Vec<Page>>,
    /// Places that were never used begin here.
    used: usize,
    /// Places that are used no more.
    free: Vec<u32>,
    held: PageSet,
    keeps_zeros: bool,
}

impl Contents {
    /// Nothing of a guest with this many pages. `keeps_zeros`: a page of zeros is held like any other; otherwise it is as if
    /// it had never been copied.
    pub(crate) fn new(pages: usize, keeps_zeros: bool) -> Contents {
        Contents {
            places: vec![NOWHERE; pages],
            chunks: Vec::new(),
            used: 0,
            free: Vec::new(),
            held: PageSet::none(pages),
            keeps_zeros,
        }
    }

    /// Copies these pages. The guest may run meanwhile; what it writes then may come in torn.
    pub(crate) fn copy(&mut self, memory: &Memory, pages: &PageSet) {
        self.copy_from(pages, |page, copy| memory.read_page(page, copy));
    }

    /// Takes over all that `newer` holds.
    pub(crate) fn merge(&mut self, newer: &Contents) {
        self.copy_from(newer.held(), |page, copy| newer.read(page, copy));
    }

    fn copy_from(&mut self, pages: &PageSet, read: impl Fn(usize, &mut Page)) {
        for page in pages.iter() {
            let place = self.place(page);
            let copy = &mut self.chunks[place / CHUNK][place % CHUNK];
            read(page, copy);
            if is_zero(copy) {
                self.free.push(place as u32);
                self.places[page] = if self.keeps_zeros { ZERO } else { NOWHERE };
            } else {
                self.places[page] = place as u32 + 1;
            }
            match self.places[page] {
                NOWHERE => self.held.remove(page),
                _ => self.held.insert(page),
            }
        }
    }

    /// Where the copy of `page` goes.
    fn place(&mut self, page: usize) -> usize {
        match self.places[page] {
            NOWHERE | ZERO => self.free.pop().map_or_else(
                || {
                    self.reserve(1);
                    self.used += 1;
                    self.used - 1
                },
                |place| place as usize,
            ),
            place => place as usize - 1,
        }
    }

    /// Takes memory for that many pages more, so that copying them does not wait for the host.
    pub(crate) fn reserve(&mut self, pages: usize) {
        while self.used + pages > self.chunks.len() * CHUNK {
            // Not zeros, for which the host would only promise memory.
            self.chunks.push(vec![[u8::MAX; PAGE_SIZE]; CHUNK]);
        }
    }

    /// Forgets all pages, and keeps some of the memory.
    pub(crate) fn clear(&mut self) {
        for page in self.held.iter() {
            self.places[page] = NOWHERE;
        }
        self.held = PageSet::none(self.places.len());
        self.chunks.truncate(KEPT);
        self.free.clear();
        self.used = 0;
    }

    /// The pages that are held.
    pub(crate) fn held(&self) -> &PageSet {
        &self.held
    }

    /// Reads a page; zeros if it is not held.
    pub(crate) fn read(&self, page: usize, into: &mut Page) {
        match self.places[page] {
            NOWHERE | ZERO => into.fill(0),
            place => {
                let place = place as usize - 1;
                into.copy_from_slice(&self.chunks[place / CHUNK][place % CHUNK]);
            }
        }
    }
}
