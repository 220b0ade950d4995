//! The headers of a TCP segment in IPv4 in Ethernet: which fields follow from the last segment, and which do not.
//!
//! Layout after RFC 894, RFC 791, RFC 9293; timestamps after RFC 7323.

use std::ops::Range;

use crate::{
    columns::{Column, Problem},
    varint::{self, unzigzag, zigzag},
};

const ETHERNET: usize = 14;
const IP: usize = 20;

/// Where the TCP header begins.
const TCP: usize = ETHERNET + IP;

/// Longest headers: TCP's may have 60 bytes.
const HEADERS_MAX: usize = TCP + 60;

/// Longest data that are remembered: requests, but not the segments of a bulk transfer, of which hardly one is like the one before.
const DATA_MAX: usize = 512;

const ETHERTYPE: Range<usize> = 12..14;
const IP_LEN: Range<usize> = 16..18;
const IP_ID: Range<usize> = 18..20;
const IP_CHECKSUM: Range<usize> = 24..26;
const IP_ADDRESSES: Range<usize> = 26..34;
/// Addresses and ports stand side by side.
const KEY: Range<usize> = 26..38;
const SEQ: Range<usize> = 38..42;
const ACK: Range<usize> = 42..46;
const FLAGS: usize = 47;
const WINDOW: Range<usize> = 48..50;
const TCP_CHECKSUM: Range<usize> = 50..52;
const STAMP: Range<usize> = 58..62;
const ECHO: Range<usize> = 62..66;

/// The timestamp option alone, as all systems lay it out: two NOPs before it.
const STAMP_OPTION: [u8; 4] = [1, 1, 8, 10];

/// What must be equal in two frames for one to be coded against the other, options aside.
const FIXED: [Range<usize>; 5] = [0..16, 20..24, KEY, 46..47, 52..54];

/// Addresses and ports of both ends.
pub(super) type Key = [u8; 12];

/// A frame that could be coded: an unfragmented IPv4 packet without options that fills its frame, and TCP in it.
pub(super) struct Segment<'a> {
    frame: &'a [u8],
    /// Length of all headers, bytes.
    len: usize,
    /// Whether the TCP checksum is the one that a sender computes.
    verifies: bool,
}

/// The last frame of a flow, and what it lets expect.
pub(super) struct Flow {
    /// Its headers; behind them the data that are remembered.
    bytes: [u8; HEADERS_MAX + DATA_MAX],
    /// Length of all headers, bytes.
    len: usize,
    /// Length of the last frame's data, bytes.
    data_len: u32,
    /// Length of the data that are remembered, bytes: those of the last frame that had some, and not too many.
    kept: usize,
    /// By how much the last frame acknowledged more than the one before it.
    ack_step: u32,
}

/// What is not as expected in a frame: differences to the expected values, 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    ip_id: u16,
    seq: u32,
    ack: u32,
    window: u16,
    /// XOR, since flags are bits.
    flags: u8,
    stamp: u32,
    echo: u32,
    /// The TCP checksum, if it is wrong.
    checksum: Option<u16>,
}

impl<'a> Segment<'a> {
    /// What `frame` holds, if it could be coded.
    pub(super) fn parse(frame: &'a [u8]) -> Option<Segment<'a>> {
        let fixed: &[u8; TCP + 20] = frame.first_chunk()?;
        let tcp_len = usize::from(fixed[46] >> 4) * 4;
        let len = TCP + tcp_len;
        let codable = fixed[ETHERTYPE] == [8, 0]
            && fixed[ETHERNET] == 0x45
            && fixed[20] & 0x3f == 0
            && fixed[21] == 0
            && fixed[23] == 6
            && usize::from(get16(fixed, IP_LEN)) == frame.len() - ETHERNET
            && tcp_len >= 20
            && len <= frame.len()
            && checksum(0, &fixed[ETHERNET..TCP]) == 0;
        // All ones verify where a sender, whose sums are never 0, computes all zeros.
        let verifies = || get16(fixed, TCP_CHECKSUM) != 0xffff && tcp_checksum(frame) == 0;
        codable.then(|| Segment { frame, len, verifies: verifies() })
    }

    pub(super) fn key(&self) -> Key {
        self.frame[KEY].try_into().expect("addresses and ports have 12 bytes")
    }

    /// What is behind the headers.
    pub(super) fn data(&self) -> &'a [u8] {
        &self.frame[self.len..]
    }
}

impl Flow {
    /// A flow that begins with this frame.
    pub(super) fn new(first: &Segment<'_>) -> Flow {
        let bytes = [0; HEADERS_MAX + DATA_MAX];
        let mut flow = Flow { bytes, len: first.len, data_len: 0, kept: 0, ack_step: 0 };
        flow.follow(first.frame);
        flow.ack_step = 0;
        flow
    }

    pub(super) fn key(&self) -> Key {
        self.bytes[KEY].try_into().expect("addresses and ports have 12 bytes")
    }

    /// All headers of the last frame.
    pub(super) fn headers(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The last data that are remembered; there may be none.
    pub(super) fn kept(&self) -> &[u8] {
        &self.bytes[self.len..][..self.kept]
    }

    /// How `next`, the following frame of this flow, differs from what is expected; `None` if in more than can be told.
    pub(super) fn changes(&self, next: &Segment<'_>) -> Option<Changes> {
        let stamps = self.has_stamps();
        let options = if stamps { STAMP.start } else { self.len };
        let frame = next.frame;
        let equal = |range: Range<usize>| self.bytes[range.clone()] == frame[range];
        // An IP checksum of all ones is right, but not the one that is computed.
        if self.len != next.len
            || !FIXED.into_iter().all(equal)
            || !equal(TCP + 20..options)
            || get16(frame, IP_CHECKSUM) == 0xffff
        {
            return None;
        }
        let difference =
            |range: Range<usize>| get32(frame, range.clone()).wrapping_sub(get32(&self.bytes, range));
        let difference16 =
            |range: Range<usize>| get16(frame, range.clone()).wrapping_sub(get16(&self.bytes, range));
        Some(Changes {
            ip_id: difference16(IP_ID).wrapping_sub(1),
            seq: difference(SEQ).wrapping_sub(self.data_len),
            ack: difference(ACK).wrapping_sub(self.ack_step),
            window: difference16(WINDOW),
            flags: frame[FLAGS] ^ self.bytes[FLAGS],
            stamp: if stamps { difference(STAMP) } else { 0 },
            echo: if stamps { difference(ECHO) } else { 0 },
            checksum: (!next.verifies).then(|| get16(frame, TCP_CHECKSUM)),
        })
    }

    /// Makes the following frame of this flow, as expected but for `changes`, of one that has the [headers](Flow::headers) of the last
    /// one and its own data.
    pub(super) fn apply(&self, changes: &Changes, frame: &mut [u8]) {
        add16(frame, IP_ID, changes.ip_id.wrapping_add(1));
        add32(frame, SEQ, changes.seq.wrapping_add(self.data_len));
        add32(frame, ACK, changes.ack.wrapping_add(self.ack_step));
        add16(frame, WINDOW, changes.window);
        frame[FLAGS] ^= changes.flags;
        if self.has_stamps() {
            add32(frame, STAMP, changes.stamp);
            add32(frame, ECHO, changes.echo);
        }
        // The caller bounds the data, so that this fits.
        let ip_len = (frame.len() - ETHERNET) as u16;
        frame[IP_LEN].copy_from_slice(&ip_len.to_be_bytes());
        frame[IP_CHECKSUM].fill(0);
        let sum = checksum(0, &frame[ETHERNET..TCP]);
        frame[IP_CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        frame[TCP_CHECKSUM].fill(0);
        let sum = changes.checksum.unwrap_or_else(|| tcp_checksum(frame));
        frame[TCP_CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    }

    /// Expects what comes behind `frame`, which has headers of the same length.
    pub(super) fn follow(&mut self, frame: &[u8]) {
        let (headers, data) = frame.split_at(self.len);
        self.data_len = data.len() as u32;
        self.ack_step = get32(frame, ACK).wrapping_sub(get32(&self.bytes, ACK));
        self.bytes[..self.len].copy_from_slice(headers);
        // A bare acknowledgement is not what the next request is like.
        if (1..=DATA_MAX).contains(&data.len()) {
            self.kept = data.len();
            self.bytes[self.len..][..data.len()].copy_from_slice(data);
        }
    }

    fn has_stamps(&self) -> bool {
        self.len == ECHO.end && self.bytes[TCP + 20..STAMP.start] == STAMP_OPTION
    }
}

/// The bits of the mask before the changes, in their order.
const MASK: [u8; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

impl Changes {
    /// Appends a mask of what there is, and what there is.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let narrow = |value: u16| zigzag(i64::from(value as i16));
        let wide = |value: u32| zigzag(i64::from(value as i32));
        let start = out.len();
        out.push(0);
        let values = [
            narrow(self.ip_id),
            wide(self.seq),
            wide(self.ack),
            narrow(self.window),
            u64::from(self.flags),
            wide(self.stamp),
            wide(self.echo),
        ];
        for (bit, value) in MASK.into_iter().zip(values).filter(|(_, value)| *value != 0) {
            out[start] |= bit;
            varint::put(out, value);
        }
        if let Some(checksum) = self.checksum {
            out[start] |= MASK[7];
            out.extend_from_slice(&checksum.to_be_bytes());
        }
    }

    /// Takes changes from a column that came from outside.
    pub(super) fn take(column: &mut Column<'_>) -> Result<Changes, Problem> {
        let mask = column.bytes(1)?[0];
        let mut values = [0; 7];
        for (value, bit) in values.iter_mut().zip(MASK) {
            if mask & bit != 0 {
                *value = column.number()?;
            }
        }
        let too_large = || Problem("headers", "a difference that is too large for its field");
        let narrow =
            |value| i16::try_from(unzigzag(value)).map(|value| value as u16).map_err(|_| too_large());
        let wide = |value| i32::try_from(unzigzag(value)).map(|value| value as u32).map_err(|_| too_large());
        let [ip_id, seq, ack, window, flags, stamp, echo] = values;
        Ok(Changes {
            ip_id: narrow(ip_id)?,
            seq: wide(seq)?,
            ack: wide(ack)?,
            window: narrow(window)?,
            flags: u8::try_from(flags).map_err(|_| too_large())?,
            stamp: wide(stamp)?,
            echo: wide(echo)?,
            checksum: match mask & MASK[7] {
                0 => None,
                _ => Some(get16(column.bytes(2)?, 0..2)),
            },
        })
    }
}

/// The checksum of the TCP segment in a frame; 0 if it stands in the frame and is right.
fn tcp_checksum(frame: &[u8]) -> u16 {
    let segment = &frame[TCP..];
    let pseudo_header = sum(&frame[IP_ADDRESSES]) + 6 + segment.len() as u64;
    checksum(pseudo_header, segment)
}

/// The Internet checksum (RFC 1071) of `bytes` on top of a sum.
fn checksum(start: u64, bytes: &[u8]) -> u16 {
    !fold(start + sum(bytes))
}

/// The sum of big-endian 16-bit words, the last one filled with a zero: a number of 16 bits with the same checksum. Adding
/// longer words in the host's order gives the same (RFC 1071, section 2).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let sum: u64 = words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    u64::from(u16::from_be(fold(sum)))
}

/// The same sum in 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn get16(bytes: &[u8], range: Range<usize>) -> u16 {
    u16::from_be_bytes(bytes[range].try_into().expect("a range of two bytes"))
}

fn get32(bytes: &[u8], range: Range<usize>) -> u32 {
    u32::from_be_bytes(bytes[range].try_into().expect("a range of four bytes"))
}

fn add16(bytes: &mut [u8], range: Range<usize>, value: u16) {
    let sum = get16(bytes, range.clone()).wrapping_add(value);
    bytes[range].copy_from_slice(&sum.to_be_bytes());
}

fn add32(bytes: &mut [u8], range: Range<usize>, value: u32) {
    let sum = get32(bytes, range.clone()).wrapping_add(value);
    bytes[range].copy_from_slice(&sum.to_be_bytes());
}

/// A segment with a timestamp option and valid checksums.
#[cfg(test)]
pub(crate) fn tcp_frame(port: u16, seq: u32, ack: u32, ip_id: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend(6379u16.to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([0x80, 0x18, 1, 0xf6, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 2, 0]);
    frame.extend(data);
    frame[IP_ID].copy_from_slice(&ip_id.to_be_bytes());
    mend(&mut frame);
    frame
}

/// Sets the length and both checksums of a frame so that they are right.
#[cfg(test)]
pub(super) fn mend(frame: &mut [u8]) {
    let len = (frame.len() - ETHERNET) as u16;
    frame[IP_LEN].copy_from_slice(&len.to_be_bytes());
    frame[IP_CHECKSUM].fill(0);
    let sum = checksum(0, &frame[ETHERNET..TCP]);
    frame[IP_CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    frame[TCP_CHECKSUM].fill(0);
    let sum = tcp_checksum(frame);
    frame[TCP_CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}
