//! The bytes of a connection on their way in and out. Both grow only as far as memory and limits allow.

use crate::limits::{IDLE_MAX, OUTPUT_MAX};
use alloc::vec::Vec;

/// There is no memory for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// Bytes that have come and were not yet read.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    /// Adds bytes at the end.
    pub fn push(&mut self, more: &[u8]) -> Result<(), OutOfMemory> {
        // Only when more was read than is left, so that each byte moves once on average.
        if self.start > self.unread().len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.try_reserve(more.len()).map_err(|_| OutOfMemory)?;
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// What was not yet read.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// What was not yet read, to be decoded in place.
    pub fn unread_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Marks bytes at the start as read.
    pub fn consume(&mut self, length: usize) {
        self.start += length;
        debug_assert!(self.start <= self.bytes.len());
        if self.is_empty() {
            reset(&mut self.bytes);
            self.start = 0;
        }
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }
}

/// Bytes to send.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: usize,
    lost: bool,
}

impl Output {
    /// Adds bytes at the end. If there is no memory for them the output is [`Output::is_lost`].
    pub fn put(&mut self, more: &[u8]) {
        match self.reserve(more.len()) {
            Ok(()) => self.bytes.extend_from_slice(more),
            Err(OutOfMemory) => self.lost = true,
        }
    }

    /// Makes sure that the next `length` bytes can be put.
    pub fn reserve(&mut self, length: usize) -> Result<(), OutOfMemory> {
        if self.bytes.len() + length > OUTPUT_MAX {
            return Err(OutOfMemory);
        }
        self.bytes.try_reserve(length).map_err(|_| OutOfMemory)
    }

    /// Whether bytes are missing, so that the connection is of no more use.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// What was not yet sent.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Marks bytes at the start as sent.
    pub fn sent(&mut self, length: usize) {
        self.sent += length;
        debug_assert!(self.sent <= self.bytes.len());
        if self.is_empty() {
            reset(&mut self.bytes);
            self.sent = 0;
        }
    }

    /// Whether all was sent.
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }
}

/// Empties a buffer, which keeps its memory unless that is unusually much.
fn reset(bytes: &mut Vec<u8>) {
    bytes.clear();
    if bytes.capacity() > IDLE_MAX {
        *bytes = Vec::new();
    }
}
