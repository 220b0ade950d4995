//! Pages of deltas, coded against what they held when they were last in the log.
//!
//! A guest that is interrupted or checkpointed again and again writes to the same pages, and changes little in most of them. Both
//! sides remember the pages that went by, and of a page that comes again only the words that differ are kept (Remus and QEMU's
//! XBZRLE do the same). Which pages are remembered follows from the log alone, so both sides remember the same.

use echovisor_event::limits::PAGE_SIZE;

use crate::{
    columns::{Columns, Problem, Reader},
    limits::PAGES_REMEMBERED,
    varint,
};

type Page = [u8; PAGE_SIZE];

/// Lengths that are not the length of a difference, which has at least ten bytes and fewer than a page.
const AS_REMEMBERED: u64 = 0;
const ZEROS: u64 = 1;
const WHOLE: u64 = PAGE_SIZE as u64;

/// Bytes that are compared and sent at once.
const WORD: usize = 8;

/// The pages that went by.
#[derive(Default)]
pub(crate) struct PageTable {
    /// By number modulo their number; a page makes room for another one.
    slots: Vec<Option<(u64, Box<Page>)>>,
    /// The last one's number: most often the next is near.
    last: u64,
    difference: Vec<u8>,
}

impl PageTable {
    /// Appends a page to the columns: as a difference if it is remembered and `compares`. Its contents are a page, or nothing for
    /// zeros.
    pub(crate) fn split(&mut self, page: u64, contents: &[u8], compares: bool, columns: &mut Columns) {
        varint::put(&mut columns.numbers, varint::zigzag(page.wrapping_sub(self.last) as i64));
        self.last = page;
        let Ok(new) = <&Page>::try_from(contents) else {
            varint::put(&mut columns.lengths, ZEROS);
            return self.remember(page, &[0; PAGE_SIZE]);
        };
        self.difference.clear();
        let slot = self.slots.get(slot(page)).and_then(Option::as_ref);
        let known = slot.filter(|(number, _)| compares && *number == page);
        let bytes = match known {
            Some((_, old)) if difference(old, new, &mut self.difference) => &self.difference[..],
            _ => new,
        };
        varint::put(&mut columns.lengths, bytes.len() as u64);
        columns.payload.extend_from_slice(bytes);
        self.remember(page, new);
    }

    /// Takes the next page from the columns, appends its contents to `out`, and gives its number.
    pub(crate) fn join(&mut self, columns: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<u64, Problem> {
        let page = self.last.wrapping_add(varint::unzigzag(columns.numbers.number()?) as u64);
        self.last = page;
        let len = columns.lengths.number()?;
        let mut contents = [0; PAGE_SIZE];
        match len {
            ZEROS => {}
            WHOLE => contents.copy_from_slice(columns.payload.bytes(PAGE_SIZE)?),
            _ => {
                let slot = self.slots.get(slot(page)).and_then(Option::as_ref);
                let (_, old) = slot
                    .filter(|(number, _)| *number == page)
                    .ok_or(Problem("lengths", "a difference to a page that is not remembered"))?;
                contents.copy_from_slice(&old[..]);
                if len != AS_REMEMBERED {
                    let len = usize::try_from(len).ok().filter(|len| *len < PAGE_SIZE);
                    let len = len.ok_or(Problem("lengths", "longer than its kind may be"))?;
                    apply(columns.payload.bytes(len)?, &mut contents)?;
                }
            }
        }
        if len != ZEROS {
            out.extend_from_slice(&contents);
        }
        self.remember(page, &contents);
        Ok(page)
    }

    fn remember(&mut self, page: u64, contents: &Page) {
        if self.slots.is_empty() {
            self.slots.resize_with(PAGES_REMEMBERED, || None);
        }
        match &mut self.slots[slot(page)] {
            Some((number, old)) => {
                *number = page;
                **old = *contents;
            }
            none => *none = Some((page, Box::new(*contents))),
        }
    }
}

fn slot(page: u64) -> usize {
    (page % PAGES_REMEMBERED as u64) as usize
}

/// Writes the words of `new` that differ to `out`: how many are skipped, how many follow, and these, again and again. Whether
/// that is shorter than the page.
fn difference(old: &Page, new: &Page, out: &mut Vec<u8>) -> bool {
    let (old, new) = (old.as_chunks::<WORD>().0, new.as_chunks::<WORD>().0);
    let mut at = 0;
    loop {
        let same = old[at..].iter().zip(&new[at..]).take_while(|(old, new)| old == new).count();
        let begin = at + same;
        if begin == new.len() {
            return true;
        }
        let count = old[begin..].iter().zip(&new[begin..]).take_while(|(old, new)| old != new).count();
        at = begin + count;
        varint::put(out, same as u64);
        varint::put(out, count as u64);
        out.extend_from_slice(new[begin..at].as_flattened());
        if out.len() >= PAGE_SIZE {
            return false;
        }
    }
}

/// Writes the words of a difference into `page`.
fn apply(mut difference: &[u8], page: &mut Page) -> Result<(), Problem> {
    let problem = Problem("payload", "not a difference between pages");
    let mut words = &mut page.as_chunks_mut::<WORD>().0[..];
    while !difference.is_empty() {
        let mut number = || usize::try_from(varint::take(&mut difference)?).ok();
        let (Some(same), Some(count)) = (number(), number()) else { return Err(problem) };
        let Some(rest) = words.get_mut(same..).filter(|rest| rest.len() >= count && count > 0) else {
            return Err(problem);
        };
        let (here, rest) = rest.split_at_mut(count);
        let Some((bytes, behind)) = difference.split_at_checked(count * WORD) else { return Err(problem) };
        here.as_flattened_mut().copy_from_slice(bytes);
        (words, difference) = (rest, behind);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pages that are much alike.
    fn page() -> impl Strategy<Value = Box<Page>> {
        prop::collection::vec((0..PAGE_SIZE, any::<u8>()), 0..700).prop_map(|changes| {
            let mut page = Box::new([7; PAGE_SIZE]);
            changes.into_iter().for_each(|(at, byte)| page[at] = byte);
            page
        })
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_one_page_to_the_other(old in page(), new in page()) {
            let mut out = Vec::new();
            if difference(&old, &new, &mut out) {
                prop_assert!(out.len() < PAGE_SIZE);
                let mut page = old.clone();
                prop_assert!(apply(&out, &mut page).is_ok());
                prop_assert_eq!(page, new);
            }
        }

        #[test]
        fn no_difference_writes_beyond_the_page(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = apply(&bytes, &mut [0; PAGE_SIZE]);
        }
    }

    #[test]
    fn what_is_no_difference_is_refused() {
        let mut page = [0; PAGE_SIZE];
        let word = [1; WORD];
        for (skipped, count, bytes) in
            [(0, 1, &word[..7]), (0, 0, &[]), (512, 1, &word), (u64::MAX, 1, &word), (0, u64::MAX, &word)]
        {
            let mut difference = Vec::new();
            varint::put(&mut difference, skipped);
            varint::put(&mut difference, count);
            difference.extend_from_slice(bytes);
            assert!(apply(&difference, &mut page).is_err(), "{skipped} {count}");
        }
        assert!(apply(&[5], &mut page).is_err());
        assert!(apply(&[0x80], &mut page).is_err());
    }
}
