//! Which pages of RAM were written by anyone but the guest's processor.

use std::sync::atomic::{AtomicU64, Ordering};

use echovisor_event::limits::PAGE_SIZE;
use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

/// Pages in a word.
const WORD: usize = u64::BITS as usize;

/// A bit for each page of a region, in KVM's layout.
///
/// vm-memory's own bitmap exchanges every word when it is read, and so takes ten times as long as it takes to see that nothing
/// is there to take. That is a part of each pause, and grows with the guest's memory.
#[derive(Debug, Default)]
pub struct Written {
    words: Vec<AtomicU64>,
}

impl Written {
    /// Takes what is marked: each word that is not zero, with its number.
    pub(crate) fn take(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let marked = self.words.iter().enumerate().filter(|(_, word)| word.load(Ordering::Relaxed) != 0);
        marked.map(|(number, word)| (number, word.swap(0, Ordering::AcqRel)))
    }

    /// Takes the mark of the page that holds byte `offset`.
    pub(crate) fn forget(&self, offset: usize) {
        let page = offset / PAGE_SIZE;
        if let Some(word) = self.words.get(page / WORD) {
            word.fetch_and(!(1 << (page % WORD)), Ordering::AcqRel);
        }
    }
}

impl<'a> WithBitmapSlice<'a> for Written {
    type S = RefSlice<'a, Written>;
}

impl Bitmap for Written {
    fn mark_dirty(&self, offset: usize, len: usize) {
        let Some(last) = len.checked_sub(1) else { return };
        for page in offset / PAGE_SIZE..=offset.saturating_add(last) / PAGE_SIZE {
            // What is beyond the region was not written.
            let Some(word) = self.words.get(page / WORD) else { return };
            word.fetch_or(1 << (page % WORD), Ordering::AcqRel);
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let page = offset / PAGE_SIZE;
        self.words.get(page / WORD).is_some_and(|word| word.load(Ordering::Acquire) & 1 << (page % WORD) != 0)
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Written> {
        RefSlice::new(self, offset)
    }
}

impl NewBitmap for Written {
    fn with_len(len: usize) -> Written {
        let words = len.div_ceil(PAGE_SIZE).div_ceil(WORD);
        Written { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_taken_once(
            pages in 1..300_usize,
            writes in prop::collection::vec((0..310 * PAGE_SIZE, 0..3 * PAGE_SIZE, 0..2 * PAGE_SIZE), 0..20),
        ) {
            let written = Written::with_len(pages * PAGE_SIZE);
            let mut expected = BTreeSet::new();
            for (base, offset, length) in writes {
                written.slice_at(base).mark_dirty(offset, length);
                expected.extend((base + offset..base + offset + length).map(|byte| byte / PAGE_SIZE));
            }
            let held = pages.div_ceil(WORD) * WORD;
            expected.retain(|page| *page < held);
            prop_assert!((0..320).all(|page| written.dirty_at(page * PAGE_SIZE) == expected.contains(&page)));
            let taken = written.take().flat_map(|(number, word)| {
                (0..WORD).filter(move |bit| word & 1 << bit != 0).map(move |bit| number * WORD + bit)
            });
            prop_assert_eq!(taken.collect::<BTreeSet<_>>(), expected);
            prop_assert_eq!(written.take().next(), None);
        }
    }
}
