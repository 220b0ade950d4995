//! Data that are like those before them in their flow: what is the same at both ends is not said again.

use std::iter::zip;

use crate::{
    columns::{Column, Problem},
    varint,
};

/// How much of a frame's data stands in the data before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    /// Bytes at their beginning that stood there, too.
    front: usize,
    /// Bytes at their end, likewise, behind those of the beginning.
    back: usize,
}

impl Repeat {
    /// Appends what `data` repeat of the `last` ones: as much of their beginning as there is, then as much of their end. Returns what is
    /// new. Where nothing can be repeated, nothing is said.
    pub(super) fn put<'a>(last: &[u8], data: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        if last.is_empty() || data.is_empty() {
            return data;
        }
        let front = common_front(last, data);
        let back = common_back(&last[front..], &data[front..]);
        varint::put(out, front as u64);
        varint::put(out, back as u64);
        &data[front..data.len() - back]
    }

    /// Takes from a column that came from outside what `len` bytes of data repeat of the `last` ones.
    pub(super) fn take(column: &mut Column<'_>, last: &[u8], len: usize) -> Result<Repeat, Problem> {
        let most = last.len().min(len);
        if most == 0 {
            return Ok(Repeat { front: 0, back: 0 });
        }
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

/// How many bytes are the same at the beginnings. Compares words: most of a request is the same, and all of that is looked at.
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
        let mut out = Vec::new();
        let new = Repeat::put(last, data, &mut out);
        let mut column = Column::new("repeats", &out);
        let taken = Repeat::take(&mut column, last, data.len()).unwrap();
        assert!(column.number().is_err(), "nothing is left over");
        assert_eq!(taken.new_of(data.len()), new.len());
        let mut joined = Vec::new();
        taken.join(last, new, &mut joined);
        assert_eq!(joined, data);
        (taken.front, taken.back)
    }

    #[test]
    fn no_more_is_repeated_than_either_has() {
        let take = |last: usize, len, front, back| {
            let mut bytes = Vec::new();
            varint::put(&mut bytes, front);
            varint::put(&mut bytes, back);
            Repeat::take(&mut Column::new("repeats", &bytes), &vec![0; last], len)
        };
        for (last, len, front, back) in [(2, 3, 3, 0), (3, 2, 3, 0), (3, 3, 2, 2), (2, 3, 1, 2), (3, 2, 0, 3)]
        {
            assert!(take(last, len, front, back).is_err(), "{front} and {back} of {last} and {len}");
        }
        for (last, len, front, back) in [(2, 3, 2, 0), (3, 2, 2, 0), (3, 3, 2, 1), (3, 2, 0, 2)] {
            let repeat = Repeat { front: front as usize, back: back as usize };
            assert_eq!(take(last, len, front, back).unwrap(), repeat);
        }
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
            // What is between begins and ends differently, or one of them has nothing there.
            let [last, data] = [&last, &data].map(|bytes| &bytes[found_front..bytes.len() - found_back]);
            prop_assert!(found_front >= front.len());
            prop_assert!(last.is_empty() || data.is_empty() || last[0] != data[0] && last.last() != data.last());
        }
    }
}
