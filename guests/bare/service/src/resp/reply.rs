//! Replies into a stream of bytes.

use crate::buffers::{OutOfMemory, Output};
use crate::commands::Failure;
use core::fmt::{self, Display, Write};

/// Longest text of a length and the ends of two lines.
const BULK_OVERHEAD: usize = 32;

/// Writes replies.
pub struct Reply<'a>(&'a mut Output);

impl<'a> Reply<'a> {
    /// Writes to `output`.
    pub fn new(output: &'a mut Output) -> Self {
        Self(output)
    }

    /// The same for a shorter time.
    pub fn reborrow(&mut self) -> Reply<'_> {
        Reply(self.0)
    }

    /// A status, such as `OK`.
    pub fn status(&mut self, status: &str) {
        self.line(b'+', status.as_bytes());
    }

    /// An error; the text begins with its code.
    pub fn error(&mut self, error: impl Display) {
        self.0.put(b"-");
        let _ = write!(OneLine(self.0), "{error}");
        self.0.put(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.line(b':', itoa::Buffer::new().format(value).as_bytes());
    }

    /// A number of something.
    pub fn count(&mut self, count: usize) {
        self.line(b':', itoa::Buffer::new().format(count).as_bytes());
    }

    /// A string of bytes, or an error if there is no memory to send it.
    pub fn bulk(&mut self, bytes: &[u8]) {
        match self.0.reserve(bytes.len() + BULK_OVERHEAD) {
            Ok(()) => {
                self.line(b'$', itoa::Buffer::new().format(bytes.len()).as_bytes());
                self.0.put(bytes);
                self.0.put(b"\r\n");
            }
            Err(OutOfMemory) => self.error(Failure::OutOfMemory),
        }
    }

    /// A string of bytes or nil.
    pub fn value(&mut self, value: Option<&[u8]>) {
        match value {
            Some(bytes) => self.bulk(bytes),
            None => self.0.put(b"$-1\r\n"),
        }
    }

    /// The head of an array; its elements follow.
    pub fn array(&mut self, length: usize) {
        self.line(b'*', itoa::Buffer::new().format(length).as_bytes());
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.0.put(&[kind]);
        self.0.put(text);
        self.0.put(b"\r\n");
    }
}

/// Writes text of which no part may end the line.
struct OneLine<'a>(&'a mut Output);

impl Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut lines = text.split(['\r', '\n']);
        self.0.put(lines.next().unwrap_or_default().as_bytes());
        for line in lines {
            self.0.put(b" ");
            self.0.put(line.as_bytes());
        }
        Ok(())
    }
}
