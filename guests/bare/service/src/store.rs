//! The data: a map from keys to values.

use crate::buffers::OutOfMemory;
use crate::number;
use alloc::boxed::Box;
use alloc::vec::Vec;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashMap;

type Map = HashMap<Box<[u8]>, Vec<u8>, SeedableRandomState>;

/// What the store knows of the heap that it lives in.
#[derive(Clone, Copy)]
pub struct Heap {
    /// Bytes in use now, by whomever.
    pub used: fn() -> usize,
    /// Bytes in use from which on the store takes nothing new; the rest is for connections.
    pub limit: usize,
}

/// Why a value could not be incremented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The value is no integer.
    NotAnInteger,
    /// The sum is no 64-bit integer.
    Overflow,
    /// There is no memory for a new value.
    OutOfMemory,
}

impl From<OutOfMemory> for AddError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// The data.
pub struct Store {
    map: Map,
    heap: Heap,
}

impl Store {
    /// An empty store. The seed keeps a peer from choosing keys that collide.
    pub fn new(seed: [u64; 2], heap: Heap) -> Self {
        let shared = Box::leak(Box::new(SharedSeed::from_u64(seed[0])));
        Self { map: Map::with_hasher(SeedableRandomState::with_seed(seed[1], shared)), heap }
    }

    /// Whether new data must be refused.
    pub fn is_full(&self) -> bool {
        self.used() > self.heap.limit
    }

    /// Bytes of the heap in use.
    pub fn used(&self) -> usize {
        (self.heap.used)()
    }

    /// Bytes of the heap from which on the store [`Store::is_full`].
    pub fn limit(&self) -> usize {
        self.heap.limit
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.map.get(key).map(Vec::as_slice)
    }

    /// Whether a key exists.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.map.contains_key(key)
    }

    /// Gives a key a value. On failure it keeps the one it had.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), OutOfMemory> {
        match self.map.get_mut(key) {
            Some(old) => overwrite(old, value),
            None => self.insert(key, copy(value)?),
        }
    }

    /// Gives a key a value; returns the one it had, which on failure it keeps.
    pub fn replace(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, OutOfMemory> {
        let value = copy(value)?;
        match self.map.get_mut(key) {
            Some(old) => Ok(Some(core::mem::replace(old, value))),
            None => self.insert(key, value).map(|()| None),
        }
    }

    /// Removes a key; returns whether it existed.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.map.remove(key).is_some()
    }

    /// Appends to a value, or makes one; returns its length.
    pub fn append(&mut self, key: &[u8], more: &[u8]) -> Result<usize, OutOfMemory> {
        match self.map.get_mut(key) {
            Some(value) => {
                value.try_reserve(more.len()).map_err(|_| OutOfMemory)?;
                value.extend_from_slice(more);
                Ok(value.len())
            }
            None => self.insert(key, copy(more)?).map(|()| more.len()),
        }
    }

    /// Adds to an integer, which is 0 if there is none; returns the sum.
    pub fn add(&mut self, key: &[u8], amount: i64) -> Result<i64, AddError> {
        let mut text = itoa::Buffer::new();
        let Some(value) = self.map.get_mut(key) else {
            self.insert(key, copy(text.format(amount).as_bytes())?)?;
            return Ok(amount);
        };
        let sum = number::parse(value).ok_or(AddError::NotAnInteger)?;
        let sum = sum.checked_add(amount).ok_or(AddError::Overflow)?;
        overwrite(value, text.format(sum).as_bytes())?;
        Ok(sum)
    }

    /// Removes all keys, and frees the table too.
    pub fn clear(&mut self) {
        self.map = Map::with_hasher(self.map.hasher().clone());
    }

    /// Adds a key that is not there.
    fn insert(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), OutOfMemory> {
        let key = copy(key)?.into_boxed_slice();
        self.map.try_reserve(1).map_err(|_| OutOfMemory)?;
        self.map.insert(key, value);
        Ok(())
    }
}

/// Replaces a value, in place if it fits and does not waste much.
fn overwrite(old: &mut Vec<u8>, value: &[u8]) -> Result<(), OutOfMemory> {
    let room = old.capacity();
    if value.len() > room || room > 2 * value.len() + 64 {
        *old = copy(value)?;
    } else {
        old.clear();
        old.extend_from_slice(value);
    }
    Ok(())
}

/// A copy that is exactly as large as it must be.
fn copy(bytes: &[u8]) -> Result<Vec<u8>, OutOfMemory> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| OutOfMemory)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}
