//! Numbers in the data of an access, least significant byte first.

/// The number that an access of at most 8 bytes carries.
pub(super) fn value(data: &[u8]) -> u64 {
    data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Answers an access with a number; bytes beyond its eighth are zero.
pub(super) fn fill(data: &mut [u8], value: u64) {
    let bytes = value.to_le_bytes().into_iter().chain(std::iter::repeat(0));
    data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
}
