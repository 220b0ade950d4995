//! In what two memories differ.

use echovisor_event::limits::PAGE_SIZE;

/// Pages that are described one by one; the others are counted.
const LISTED: usize = 64;

/// Differing bytes that are described of each.
const OFFSETS: usize = 8;

/// Bits of a page table's entry that hardware sets on its own account: accessed and dirty.
const ACCESSED_OR_DIRTY: u64 = 1 << 5 | 1 << 6;

/// The pages in which a memory differed from what it should have been.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// How many there are.
    pub pages: u64,
    /// How many of them differ in nothing but bits 5 and 6 of 8-byte words, as page tables do whose entries the processor has
    /// marked as accessed or dirty.
    pub benign: u64,
    /// Some of them, rising.
    pub listed: Vec<PageDifference>,
}

/// In what a page differed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageDifference {
    /// The page.
    pub page: usize,
    /// The first bytes that differ: offset, what should be there, what was.
    pub bytes: Vec<(u16, u8, u8)>,
    /// Bytes that differ.
    pub count: u32,
    /// Whether only bits 5 and 6 of 8-byte words differ.
    pub benign: bool,
}

impl Differences {
    /// Notes in what page `page` differs, if it does.
    pub(super) fn note(&mut self, page: usize, expected: &[u8; PAGE_SIZE], found: &[u8; PAGE_SIZE]) {
        if expected == found {
            return;
        }
        let benign = is_benign(expected, found);
        self.pages += 1;
        self.benign += u64::from(benign);
        if self.listed.len() < LISTED {
            let all =
                (0_u16..).zip(expected.iter().zip(found)).filter(|(_, (expected, found))| expected != found);
            let bytes = all
                .clone()
                .take(OFFSETS)
                .map(|(offset, (expected, found))| (offset, *expected, *found))
                .collect();
            self.listed.push(PageDifference { page, bytes, count: all.count() as u32, benign });
        }
    }

    /// In the order of the pages, whatever order they were noted in.
    pub(super) fn sort(&mut self) {
        self.listed.sort_by_key(|difference| difference.page);
    }
}

fn is_benign(expected: &[u8; PAGE_SIZE], found: &[u8; PAGE_SIZE]) -> bool {
    let (expected, _) = expected.as_chunks::<8>();
    let (found, _) = found.as_chunks::<8>();
    expected.iter().zip(found).all(|(expected, found)| {
        (u64::from_le_bytes(*expected) ^ u64::from_le_bytes(*found)) & !ACCESSED_OR_DIRTY == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_hardware_sets_are_told_apart() {
        let mut differences = Differences::default();
        let zero = [0; PAGE_SIZE];
        let with = |offset: usize, value: u8| {
            let mut page = zero;
            page[offset] = value;
            page
        };
        differences.note(7, &zero, &with(4088, 0x60));
        differences.note(3, &with(9, 1), &with(16, 0x20));
        differences.note(5, &zero, &zero);
        differences.sort();
        assert_eq!((differences.pages, differences.benign), (2, 1));
        let [first, second] = &differences.listed[..] else { panic!("{differences:?}") };
        assert_eq!((first.page, first.benign, first.count), (3, false, 2));
        assert_eq!(first.bytes, [(9, 1, 0), (16, 0, 0x20)]);
        assert_eq!((second.page, second.benign, &second.bytes[..]), (7, true, &[(4088, 0, 0x60)][..]));
    }
}
