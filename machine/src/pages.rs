//! Sets of pages.

use std::iter::successors;

/// A set of a guest's pages, by number: one bit for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
    pages: usize,
}

impl PageSet {
    /// None of a guest's `pages`.
    #[must_use]
    pub fn none(pages: usize) -> PageSet {
        PageSet { words: vec![0; pages.div_ceil(64)], pages }
    }

    /// All of a guest's `pages`.
    #[must_use]
    pub fn all(pages: usize) -> PageSet {
        let mut set = PageSet::none(pages);
        set.unite_words(0, &vec![u64::MAX; set.words.len()]);
        set
    }

    /// Adds a page.
    ///
    /// # Panics
    /// If the guest has no such page.
    pub fn insert(&mut self, page: usize) {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        self.words[page / 64] |= 1 << (page % 64);
    }

    /// Takes a page away, if it is in the set.
    pub fn remove(&mut self, page: usize) {
        if let Some(word) = self.words.get_mut(page / 64) {
            *word &= !(1 << (page % 64));
        }
    }

    /// Whether a page is in the set.
    #[must_use]
    pub fn contains(&self, page: usize) -> bool {
        self.words.get(page / 64).is_some_and(|word| word & 1 << (page % 64) != 0)
    }

    /// How many pages are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no page is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The pages in the set, rising.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            // From one set bit to the next: each step takes the lowest one away.
            let rests = successors(Some(*word), |rest| Some(rest & rest.wrapping_sub(1)));
            rests.take_while(|rest| *rest != 0).map(move |rest| index * 64 + rest.trailing_zeros() as usize)
        })
    }

    /// Adds all pages of another set of the same guest's pages.
    pub fn unite(&mut self, other: &PageSet) {
        self.unite_words(0, &other.words);
    }

    /// Adds pages that are given as a bitmap in KVM's layout: the lowest bit of the first word is page `first`, a multiple of 64.
    /// Bits beyond the guest's pages count for nothing.
    pub(crate) fn unite_words(&mut self, first: usize, words: &[u64]) {
        for (word, more) in self.words.iter_mut().skip(first / 64).zip(words) {
            *word |= more;
        }
        if let Some(last) = self.words.last_mut().filter(|_| !self.pages.is_multiple_of(64)) {
            *last &= (1 << (self.pages % 64)) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_pages_is_a_set(pages in 1_usize..300, wanted in prop::collection::vec(0_usize..300, 0..100)) {
            let wanted: BTreeSet<usize> = wanted.into_iter().filter(|page| *page < pages).collect();
            let mut set = PageSet::none(pages);
            wanted.iter().for_each(|page| set.insert(*page));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), wanted.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((set.len(), set.is_empty()), (wanted.len(), wanted.is_empty()));
            prop_assert!((0..320).all(|page| set.contains(page) == wanted.contains(&page)));

            let all = PageSet::all(pages);
            prop_assert_eq!(all.iter().collect::<Vec<_>>(), (0..pages).collect::<Vec<_>>());
            set.unite(&all);
            prop_assert_eq!(&set, &all);
            (0..320).filter(|page| !wanted.contains(page)).for_each(|page| set.remove(page));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), wanted.into_iter().collect::<Vec<_>>());
        }
    }
}
