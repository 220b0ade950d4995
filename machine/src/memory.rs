//! The guest's RAM.

use echovisor_event::limits::{MEMORY_MAX, MEMORY_MIN, MEMORY_STEP, PAGE_SIZE};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _,
    bitmap::Bitmap as _,
};

use crate::{
    boot::layout::{HIGH_MEMORY, LOW_MEMORY_END},
    pages::PageSet,
    written::Written,
};

/// RAM as vm-memory knows it, with a bit for each page that was written through it.
pub type Mmap = GuestMemoryMmap<Written>;

/// The guest's RAM, zero-filled at the start: from address zero, and what does not fit below the devices from 4 GiB on. Its pages
/// are numbered without the gap. Clones share the same RAM.
#[derive(Clone, Debug)]
pub struct Memory {
    mmap: Mmap,
    size: u64,
}

/// A stretch of RAM without a gap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The number of its first page, a multiple of 64.
    pub(crate) first_page: usize,
    /// Its guest-physical address.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Where it lies in this process.
    pub(crate) host: u64,
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
        let low = size.min(LOW_MEMORY_END);
        let ranges = [(GuestAddress(0), low as usize), (GuestAddress(HIGH_MEMORY), (size - low) as usize)];
        let used = if size > low { 2 } else { 1 };
        let mmap = Mmap::from_ranges(&ranges[..used]).map_err(|source| MemoryError::Map { size, source })?;
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

    /// Bytes that lie below the devices, from address zero on.
    #[must_use]
    pub fn low_size(&self) -> u64 {
        self.size.min(LOW_MEMORY_END)
    }

    /// Bytes that lie from 4 GiB on.
    #[must_use]
    pub fn high_size(&self) -> u64 {
        self.size - self.low_size()
    }

    /// The guest-physical address of page `index`, whether or not a guest has so many.
    #[must_use]
    pub fn page_address(index: usize) -> u64 {
        let offset = (index * PAGE_SIZE) as u64;
        if offset < LOW_MEMORY_END { offset } else { offset - LOW_MEMORY_END + HIGH_MEMORY }
    }

    /// Whether there is RAM at `address`.
    pub(crate) fn holds(&self, address: u64) -> bool {
        self.mmap.address_in_range(GuestAddress(address))
    }

    /// As vm-memory knows it, for the crates that speak its traits.
    #[must_use]
    pub fn mmap(&self) -> &Mmap {
        &self.mmap
    }

    /// The stretches of RAM without a gap, rising.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        let mut first_page = 0;
        self.mmap.iter().map(move |region| {
            let part = Part {
                first_page,
                address: region.start_addr().0,
                size: region.len(),
                host: region.as_ptr() as u64,
            };
            first_page += part.size as usize / PAGE_SIZE;
            part
        })
    }

    /// Adds the pages that were written by anyone but the guest's processor since the last call, and forgets them.
    pub(crate) fn take_written(&self, pages: &mut PageSet) {
        for (region, part) in self.mmap.iter().zip(self.parts()) {
            // Dereferenced, because a region's own method gives a view from which nothing can be taken.
            for (number, word) in (**region).bitmap().take() {
                pages.unite_words(part.first_page + number * 64, &[word]);
            }
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
        self.get(Memory::page_address(index), page);
    }

    /// Changes a bit of byte `number` of RAM, which is counted as the pages are, on nobody's account, as a fault of the host's memory
    /// does. For tests of what finds such faults.
    ///
    /// # Panics
    /// If RAM has no such byte.
    pub fn flip(&self, number: u64, bit: u8) {
        let page = PAGE_SIZE as u64;
        let address = Memory::page_address((number / page) as usize) + number % page;
        let (region, at) = self.mmap.to_region_addr(GuestAddress(address)).expect("a byte of RAM");
        let bitmap = (**region).bitmap();
        let known = bitmap.dirty_at(at.0 as usize);
        let mut byte = [0];
        self.get(address, &mut byte);
        self.put(address, &[byte[0] ^ 1 << (bit % 8)]);
        if !known {
            bitmap.forget(at.0 as usize);
        }
    }

    /// Writes page `index`.
    ///
    /// # Panics
    /// If `index` is not below [`Memory::pages`].
    pub fn write_page(&self, index: usize, page: &[u8; PAGE_SIZE]) {
        self.put(Memory::page_address(index), page);
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
    fn what_does_not_fit_below_the_devices_lies_above_4_gib() {
        let memory = Memory::new(LOW_MEMORY_END + 2 * MEMORY_STEP).unwrap();
        assert_eq!((memory.low_size(), memory.high_size()), (LOW_MEMORY_END, 2 * MEMORY_STEP));
        let low_pages = LOW_MEMORY_END as usize / PAGE_SIZE;
        assert_eq!(Memory::page_address(low_pages - 1), LOW_MEMORY_END - PAGE_SIZE as u64);
        assert_eq!(Memory::page_address(low_pages), HIGH_MEMORY);
        let end = HIGH_MEMORY + 2 * MEMORY_STEP;
        for (address, holds) in [
            (LOW_MEMORY_END - 1, true),
            (LOW_MEMORY_END, false),
            (HIGH_MEMORY - 1, false),
            (HIGH_MEMORY, true),
            (end - 1, true),
            (end, false),
        ] {
            assert_eq!(memory.holds(address), holds, "{address:#x}");
        }

        // What is written by address is read by page and on the account, and what is flipped is not.
        memory.put(HIGH_MEMORY + 5 * PAGE_SIZE as u64, &[7]);
        memory.flip((low_pages * PAGE_SIZE) as u64 + 9, 0);
        let mut page = [0; PAGE_SIZE];
        memory.read_page(low_pages + 5, &mut page);
        assert_eq!(page[..2], [7, 0]);
        memory.read_page(low_pages, &mut page);
        assert_eq!(page[9], 1);
        let mut written = PageSet::none(memory.pages());
        memory.take_written(&mut written);
        assert_eq!(written.iter().collect::<Vec<_>>(), [low_pages + 5]);
        memory.write_page(memory.pages() - 1, &[1; PAGE_SIZE]);
        memory.get(end - PAGE_SIZE as u64, &mut page);
        assert_eq!(page, [1; PAGE_SIZE]);
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
