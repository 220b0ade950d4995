//! The guest's RAM.

use echovisor_event::limits::{MEMORY_MAX, MEMORY_MIN, MEMORY_STEP, PAGE_SIZE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, bitmap::AtomicBitmap};

use crate::pages::PageSet;

/// RAM as vm-memory knows it, with a bit for each page that was written through it.
pub type Mmap = GuestMemoryMmap<AtomicBitmap>;

/// The guest's RAM: one region from address zero, zero-filled at the start. Clones share the same RAM.
#[derive(Clone, Debug)]
pub struct Memory {
    mmap: Mmap,
    size: u64,
}

/// Why RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size is out of range or not a multiple of [`MEMORY_STEP`].
    #[error(
        "guest memory of {size} bytes: it must be a multiple of {MEMORY_STEP} from {MEMORY_MIN} to {MEMORY_MAX}"
    )]
    Size {
        /// The size asked for, bytes.
        size: u64,
    },
    /// The host did not give the memory.
    #[error("the host did not give {size} bytes of guest memory: {source}")]
    Map {
        /// The size asked for, bytes.
        size: u64,
        /// What the host said.
        source: vm_memory::mmap::FromRangesError,
    },
}

impl Memory {
    /// Maps `size` bytes of zero-filled RAM. The host gives pages when they are first touched.
    ///
    /// # Errors
    /// If `size` is out of [`limits`](echovisor_event::limits) or the host has no memory.
    pub fn new(size: u64) -> Result<Memory, MemoryError> {
        let aligned = size.is_multiple_of(MEMORY_STEP);
        if !aligned || !(MEMORY_MIN..=MEMORY_MAX).contains(&size) {
            return Err(MemoryError::Size { size });
        }
        let mmap = Mmap::from_ranges(&[(GuestAddress(0), size as usize)])
            .map_err(|source| MemoryError::Map { size, source })?;
        Ok(Memory { mmap, size })
    }

    /// Size, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.size as usize / PAGE_SIZE
    }

    /// As vm-memory knows it, for the crates that speak its traits.
    #[must_use]
    pub fn mmap(&self) -> &Mmap {
        &self.mmap
    }

    /// Where the RAM lies in this process.
    pub(crate) fn host_address(&self) -> u64 {
        self.mmap.get_host_address(GuestAddress(0)).map_or(0, |start| start as u64)
    }

    /// Adds the pages that were written by anyone but the guest's processor since the last call, and forgets them.
    pub(crate) fn take_written(&self, pages: &mut PageSet) {
        for region in self.mmap.iter() {
            // Dereferenced, because a region's own method gives a view that cannot be reset.
            pages.unite_words(&(**region).bitmap().get_and_reset());
        }
    }

    /// Reads at an address of the machine's own choice, such as the control page.
    ///
    /// # Panics
    /// If the range is not within RAM.
    pub(crate) fn get(&self, address: u64, bytes: &mut [u8]) {
        self.mmap.read_slice(bytes, GuestAddress(address)).expect("an address within RAM");
    }

    /// Writes at an address of the machine's own choice.
    ///
    /// # Panics
    /// If the range is not within RAM.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.mmap.write_slice(bytes, GuestAddress(address)).expect("an address within RAM");
    }

    /// Reads page `index` into `page`. Both sides of an exit may do this; while the guest runs, the bytes may be torn.
    ///
    /// # Panics
    /// If `index` is not below [`Memory::pages`].
    pub fn read_page(&self, index: usize, page: &mut [u8; PAGE_SIZE]) {
        self.get((index * PAGE_SIZE) as u64, page);
    }

    /// Changes a bit on nobody's account, as a fault of the host's memory does. For tests of what finds such faults.
    ///
    /// # Panics
    /// If `address` is not within RAM.
    pub fn flip(&self, address: u64, bit: u8) {
        let known = |memory: &Memory| {
            memory.mmap.iter().any(|region| (**region).bitmap().is_addr_set(address as usize))
        };
        let known = known(self);
        let mut byte = [0];
        self.get(address, &mut byte);
        self.put(address, &[byte[0] ^ 1 << (bit % 8)]);
        if !known {
            self.mmap.iter().for_each(|region| (**region).bitmap().reset_addr_range(address as usize, 1));
        }
    }

    /// Writes page `index`.
    ///
    /// # Panics
    /// If `index` is not below [`Memory::pages`].
    pub fn write_page(&self, index: usize, page: &[u8; PAGE_SIZE]) {
        self.put((index * PAGE_SIZE) as u64, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_their_limits() {
        for size in [0, MEMORY_MIN - MEMORY_STEP, MEMORY_MIN + 1, MEMORY_MAX + MEMORY_STEP, u64::MAX] {
            assert!(matches!(Memory::new(size), Err(MemoryError::Size { .. })), "{size} bytes");
        }
        let memory = Memory::new(MEMORY_MIN).unwrap();
        assert_eq!((memory.size(), memory.pages() * PAGE_SIZE), (MEMORY_MIN, MEMORY_MIN as usize));
    }

    #[test]
    fn pages_start_as_zeros_and_clones_share_them() {
        let memory = Memory::new(MEMORY_MIN).unwrap();
        let other = memory.clone();
        let last = memory.pages() - 1;
        let mut page = [1; PAGE_SIZE];
        memory.read_page(last, &mut page);
        assert_eq!(page, [0; PAGE_SIZE]);
        other.write_page(last, &[9; PAGE_SIZE]);
        memory.read_page(last, &mut page);
        assert_eq!(page, [9; PAGE_SIZE]);
        memory.read_page(last - 1, &mut page);
        assert_eq!(page, [0; PAGE_SIZE], "only that page was written");
    }
}
