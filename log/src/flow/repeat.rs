//! Data that are like those before them in their flow: what is the same at both ends is not said again.

use std::iter::zip;

use crate::{
    columns::{Column, Problem},
    varint,
};

/// How much of a frame's data stands in the data before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Repeat {
    /// Bytes at their beginning that stood there, too.
    front: usize,
    /// Bytes at their end, likewise, behind those of the beginning.
    back: usize,
}

impl Repeat {
    /// What `data` repeat of the `last` ones: as much of their beginning as there is, then as much of their end.
    pub(super) fn find(last: &[u8], data: &[u8]) -> Repeat {
        let front = common_front(last, data);
        Repeat { front, back: common_back(&last[front..], &data[front..]) }
    }

    /// Appends how much is repeated, and returns what is new in `data`.
    pub(super) fn put<'a>(&self, data: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        varint::put(out, self.front as u64);
        varint::put(out, self.back as u64);
        &data[self.front..data.len() - self.back]
    }

    /// Takes from a column that came from outside how much `len` bytes of data repeat of the `last` ones.
    pub(super) fn take(column: &mut Column<'_>, last: &[u8], len: usize) -> Result<Repeat, Problem> {
        let most = last.len().min(len);
        let front = column.length(most)?;
        Ok(Repeat { front, back: column.length(most - front)? })
    }

    /// How many of `len` bytes of data are new.
    pub(super) fn new_of(&self, len: usize) -> usize {
        len - self.front - self.back
    }

    /// Appends data of which `new` are those that the `last` ones do not have.
    pub(super) fn join(&self, last: &[u8], new: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&last[..self.front]);
        out.extend_from_slice(new);
        out.extend_from_slice(&last[last.len() - self.back..]);
    }
}

/// How many bytes are the same at the beginnings. Compares words: a request is often short, and all of it is looked at.
fn common_front(a: &[u8], b: &[u8]) -> usize {
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    for (index, (a, b)) in zip(a_words, b_words).enumerate() {
        let differences = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differences != 0 {
            return 8 * index + (differences.trailing_zeros() / 8) as usize;
        }
    }
    let compared = 8 * a_words.len().min(b_words.len());
    compared + zip(&a[compared..], &b[compared..]).take_while(|(a, b)| a == b).count()
}

/// The same at the ends.
fn common_back(a: &[u8], b: &[u8]) -> usize {
    let (a_words, b_words) = (a.as_rchunks::<8>().1, b.as_rchunks::<8>().1);
    for (index, (a, b)) in zip(a_words.iter().rev(), b_words.iter().rev()).enumerate() {
        let differences = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differences != 0 {
            return 8 * index + (differences.leading_zeros() / 8) as usize;
        }
    }
    let compared = 8 * a_words.len().min(b_words.len());
    let (a, b) = (&a[..a.len() - compared], &b[..b.len() - compared]);
    compared + zip(a.iter().rev(), b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// How much `data` repeat of `last`, and that they come out as they went in.
    fn repeated(last: &[u8], data: &[u8]) -> (usize, usize) {
        let found = Repeat::find(last, data);
        let mut out = Vec::new();
        let new = found.put(data, &mut out);
        assert_eq!(new.len(), found.new_of(data.len()));
        let mut column = Column::new("repeats", &out);
        let taken = Repeat::take(&mut column, last, data.len()).unwrap_or_default();
        assert_eq!(taken, found);
        let mut joined = Vec::new();
        taken.join(last, new, &mut joined);
        assert_eq!(joined, data);
        (found.front, found.back)
    }

    #[test]
    fn what_is_the_same_at_both_ends_is_found() {
        assert_eq!(repeated(b"SET key:0001 value", b"SET key:0342 value"), (9, 6));
        assert_eq!(repeated(b"GET key:1", b"GET key:1"), (9, 0));
        assert_eq!(repeated(b"PING", b"PING PING"), (4, 0));
        assert_eq!(repeated(b"PING PING", b"PING"), (4, 0));
        assert_eq!(repeated(b"", b"GET"), (0, 0));
        assert_eq!(repeated(b"GET", b""), (0, 0));
        assert_eq!(repeated(b"aaaa", b"aaa"), (3, 0));
    }

    proptest! {
        #[test]
        fn no_byte_more_is_the_same(
            front in vec(any::<u8>(), 0..30),
            middles in [vec(0u8..2, 0..20), vec(0u8..2, 0..20)],
            back in vec(any::<u8>(), 0..30),
        ) {
            let [last, data] = middles.map(|middle| [&front[..], &middle, &back].concat());
            let (found_front, found_back) = repeated(&last, &data);
            let [last, data] = [&last, &data].map(|bytes| &bytes[found_front..bytes.len() - found_back]);
            prop_assert!(found_front >= front.len() && found_front + found_back >= front.len() + back.len().min(last.len().min(data.len())));
            prop_assert!(last.is_empty() || data.is_empty() || last[0] != data[0] && last.last() != data.last());
        }
    }
}
