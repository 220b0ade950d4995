//! Requests out of a stream of bytes.

use super::inline;
use crate::limits::{ARGUMENTS_MAX, LINE_MAX, REQUEST_MAX, VALUE_MAX};
use crate::number;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Index;
use memchr::memchr;

/// Capacity for arguments that is kept between requests.
const ARGUMENTS_KEPT: usize = 1024;

/// What is wrong with a request. The connection can't go on after it, since nobody knows where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The count of arguments is no number or too large.
    Count,
    /// The length of an argument is no number or too large.
    Length,
    /// An argument does not begin with a dollar sign but with this.
    NoDollar(u8),
    /// The line with the count of arguments does not end.
    CountLine,
    /// The line with the length of an argument does not end.
    LengthLine,
    /// An inline command does not end.
    InlineLine,
    /// The quotes of an inline command do not pair up.
    Quotes,
    /// All arguments together are too large.
    Request,
    /// There is no memory for the arguments.
    OutOfMemory,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            Self::Count => f.write_str("invalid multibulk length"),
            Self::Length => f.write_str("invalid bulk length"),
            Self::NoDollar(byte) => write!(f, "expected '$', got '{}'", byte.escape_ascii()),
            Self::CountLine => f.write_str("too big mbulk count string"),
            Self::LengthLine => f.write_str("too big bulk count string"),
            Self::InlineLine => f.write_str("too big inline request"),
            Self::Quotes => f.write_str("unbalanced quotes in request"),
            Self::Request => f.write_str("too big request"),
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

/// Where an argument begins and ends.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

// Spans are half as large as ranges because requests are.
const _: () = assert!(REQUEST_MAX < u32::MAX as usize);

/// Reads one request after the other, and resumes where it stopped when one is not complete: however small the pieces in
/// which a request comes, each byte of it is looked at once.
#[derive(Default)]
pub struct Parser {
    /// What was read of the request, bytes.
    at: usize,
    /// Up to where the line that begins at `at` was searched for its end.
    searched: usize,
    /// Arguments that are still to come.
    missing: usize,
    /// Length of the argument that begins at `at`, once its line was read.
    length: Option<usize>,
    /// The last request was complete.
    complete: bool,
    arguments: Vec<Span>,
}

impl Parser {
    /// Reads on in a request that begins at the start of `bytes`. Once it is complete, returns its length in bytes: its
    /// [`Parser::arguments`] can be had, and the next call expects `bytes` to start behind it.
    pub fn next(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, ProtocolError> {
        if self.complete {
            self.reset();
        }
        let done = self.proceed(bytes)?;
        self.complete = done;
        Ok(done.then_some(self.at))
    }

    /// The arguments of a complete request; there may be none. `bytes` are those that [`Parser::next`] was given.
    pub fn arguments<'a>(&'a self, bytes: &'a [u8]) -> Arguments<'a> {
        Arguments { bytes, spans: &self.arguments }
    }

    /// Reads as far as it goes; returns whether the request is complete.
    fn proceed(&mut self, bytes: &mut [u8]) -> Result<bool, ProtocolError> {
        if self.at == 0 {
            let Some(&first) = bytes.first() else {
                return Ok(false);
            };
            if first != b'*' {
                return self.inline(bytes);
            }
            let Some(line) = self.line(bytes, ProtocolError::CountLine)? else {
                return Ok(false);
            };
            // As in redis, a request of less than one argument is none.
            let count = number::parse(&line[1..]).ok_or(ProtocolError::Count)?.max(0);
            self.missing = usize::try_from(count).map_err(|_| ProtocolError::Count)?;
            if self.missing > ARGUMENTS_MAX {
                return Err(ProtocolError::Count);
            }
        }
        while self.missing > 0 {
            let Some(length) = self.length(bytes)? else {
                return Ok(false);
            };
            let end = self.at + length;
            if bytes.len() < end + 2 {
                return Ok(false);
            }
            self.add(self.at, end)?;
            self.missing -= 1;
            self.length = None;
            // As in redis, whatever stands in the place of the line's end.
            self.at = end + 2;
        }
        Ok(true)
    }

    /// The length of the argument that comes next.
    fn length(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if self.length.is_none() {
            let Some(line) = self.line(bytes, ProtocolError::LengthLine)? else {
                return Ok(None);
            };
            let digits = match line {
                [b'$', digits @ ..] => digits,
                _ => return Err(ProtocolError::NoDollar(line.first().copied().unwrap_or(b'\r'))),
            };
            let length = number::parse(digits).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|&length| length <= VALUE_MAX).ok_or(ProtocolError::Length)?;
            if self.at + length > REQUEST_MAX {
                return Err(ProtocolError::Request);
            }
            self.length = Some(length);
        }
        Ok(self.length)
    }

    /// Reads an inline command.
    fn inline(&mut self, bytes: &mut [u8]) -> Result<bool, ProtocolError> {
        let Some(length) = self.line(bytes, ProtocolError::InlineLine)?.map(<[u8]>::len) else {
            return Ok(false);
        };
        let mut enough = Ok(());
        inline::split(&mut bytes[..length], |start, end| {
            if enough.is_ok() {
                enough = self.add(start, end);
            }
        })
        .map_err(|_| ProtocolError::Quotes)?;
        enough.map(|()| true)
    }

    /// Reads the line that begins at `at`, without its end.
    fn line<'a>(
        &mut self,
        bytes: &'a [u8],
        too_long: ProtocolError,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        let start = self.at;
        let from = self.searched.max(start);
        let Some(end) = memchr(b'\n', &bytes[from..]).map(|offset| from + offset) else {
            self.searched = bytes.len();
            // One byte more may be the first of the line's end.
            return if bytes.len() - start > LINE_MAX + 1 { Err(too_long) } else { Ok(None) };
        };
        self.at = end + 1;
        let line = &bytes[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE_MAX { Err(too_long) } else { Ok(Some(line)) }
    }

    /// Adds an argument.
    fn add(&mut self, start: usize, end: usize) -> Result<(), ProtocolError> {
        self.arguments.try_reserve(1).map_err(|_| ProtocolError::OutOfMemory)?;
        self.arguments.push(Span { start: start as u32, end: end as u32 });
        Ok(())
    }

    /// Forgets the request.
    fn reset(&mut self) {
        let mut arguments = core::mem::take(&mut self.arguments);
        arguments.clear();
        if arguments.capacity() > ARGUMENTS_KEPT {
            arguments = Vec::new();
        }
        *self = Self { arguments, ..Self::default() };
    }
}

/// The arguments of a request; the first is the command's name.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Arguments<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none, as in an empty line.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| &self.bytes[span.start as usize..span.end as usize])
    }

    /// Those from the one with the given index on.
    pub fn from(&self, index: usize) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let Self { bytes, spans } = *self;
        spans.iter().skip(index).map(move |span| &bytes[span.start as usize..span.end as usize])
    }
}

impl Index<usize> for Arguments<'_> {
    type Output = [u8];

    fn index(&self, index: usize) -> &[u8] {
        self.get(index).expect("the command's arity was checked")
    }
}
