//! Write protection by userfaultfd: in the pause all pages are protected, and each is copied when the guest writes to it for
//! the first time.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use echovisor_event::limits::PAGE_SIZE;
use echovisor_machine::{Memory, PageSet};
use echovisor_snapshot::Precopy;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`.
const API: libc::c_ulong = 0xc018_aa3f;
/// `_IOWR(0xaa, 0, struct uffdio_register)`.
const REGISTER: libc::c_ulong = 0xc020_aa00;
/// `_IOWR(0xaa, 6, struct uffdio_writeprotect)`.
const WRITE_PROTECT: libc::c_ulong = 0xc018_aa06;
/// Version of the interface.
const VERSION: u64 = 0xaa;
/// `UFFD_FEATURE_PAGEFAULT_FLAG_WP`.
const FEATURE: u64 = 1;
/// `UFFDIO_REGISTER_MODE_WP`.
const MODE_WP: u64 = 2;
/// `UFFD_EVENT_PAGEFAULT`.
const PAGE_FAULT: u8 = 0x12;

/// A guest's memory that can be protected.
pub(crate) struct Protection {
    fd: OwnedFd,
    memory: Memory,
    parts: Vec<Part>,
}

/// A stretch of the guest's memory: where it lies in this process, its size in bytes, and its first page.
#[derive(Clone, Copy)]
struct Part {
    base: u64,
    size: u64,
    first_page: usize,
}

impl Protection {
    /// `None` if the host does not offer it.
    pub(crate) fn new(memory: &Memory) -> Option<Protection> {
        // SAFETY: the call makes a descriptor, which nobody else owns.
        let fd = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK);
            (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))?
        };
        let mut parts = Vec::new();
        let mut first_page = 0;
        for region in memory.mmap().iter() {
            let (base, size) = (region.as_ptr() as u64, region.len());
            parts.push(Part { base, size, first_page });
            first_page += size as usize / PAGE_SIZE;
        }
        let protection = Protection { fd, memory: memory.clone(), parts };
        protection.call(API, &mut [VERSION, FEATURE, 0]).ok()?;
        for Part { base, size, .. } in &protection.parts {
            protection.call(REGISTER, &mut [*base, *size, MODE_WP, 0]).ok()?;
        }
        Some(protection)
    }

    /// Protects all pages.
    pub(crate) fn arm(&self) {
        self.protect(1);
    }

    /// Lets all pages be written again.
    pub(crate) fn disarm(&self) {
        self.protect(0);
    }

    fn protect(&self, mode: u64) {
        for Part { base, size, .. } in &self.parts {
            self.call(WRITE_PROTECT, &mut [*base, *size, mode]).expect("protecting memory");
        }
    }

    /// Copies each page that the guest is about to write, until it is `done`. How many there were.
    pub(crate) fn serve(&self, precopy: &mut Precopy, done: &AtomicBool) -> usize {
        let mut faults = 0;
        let mut message = [0_u8; 32];
        let mut pages = PageSet::none(self.memory.pages());
        while !done.load(Ordering::Acquire) {
            // SAFETY: the kernel writes no more than the length of the array.
            let read = unsafe { libc::read(self.fd.as_raw_fd(), message.as_mut_ptr().cast(), message.len()) };
            if read != message.len() as isize || message[0] != PAGE_FAULT {
                std::thread::yield_now();
                continue;
            }
            let address = u64::from_le_bytes(message[16..24].try_into().expect("eight bytes"));
            let part = self.parts.iter().find(|part| (part.base..part.base + part.size).contains(&address));
            let part = part.expect("a page of the guest's");
            let inside = (address - part.base) as usize / PAGE_SIZE;
            let page = part.first_page + inside;
            pages.insert(page);
            precopy.copy(&pages);
            pages.remove(page);
            let start = part.base + (inside * PAGE_SIZE) as u64;
            self.call(WRITE_PROTECT, &mut [start, PAGE_SIZE as u64, 0]).expect("freeing a page");
            faults += 1;
        }
        faults
    }

    fn call<const N: usize>(&self, request: libc::c_ulong, argument: &mut [u64; N]) -> io::Result<()> {
        // SAFETY: each request has an argument of the words that it is given here; the range is this process' own memory, and
        // to protect it changes no byte.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), request, argument.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
