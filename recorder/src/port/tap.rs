//! A TAP device.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, netdevice::name_to_index, socket},
};

use super::PortError;

/// An open TAP device.
pub struct Tap(File);

// From linux/if_tun.h and asm-generic/ioctl.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54CA;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54D0;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;

impl Tap {
    /// Opens the device `name`, which must exist.
    pub(super) fn open(name: &str) -> Result<Tap, PortError> {
        let failed = |what| {
            let name = name.to_owned();
            move |source| PortError::Tap { name, what, source }
        };
        // TUNSETIFF would silently make a device that nobody has configured. The kernel is asked, since /sys may show
        // another network namespace than this process's.
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)
            .map_err(|error| failed("looking for it")(error.into()))?;
        name_to_index(&socket, name).map_err(|_| failed("looking for it")(io::ErrorKind::NotFound.into()))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(failed("opening /dev/net/tun"))?;
        let mut request = [0_u8; 40]; // struct ifreq: a name of 16 bytes, then the flags
        if name.len() >= libc::IFNAMSIZ {
            return Err(failed("its name is too long")(io::ErrorKind::InvalidInput.into()));
        }
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&(IFF_TAP | IFF_NO_PI).to_ne_bytes());
        // SAFETY: `request` is a struct ifreq, which TUNSETIFF reads and writes, and it outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) })
            .map_err(failed("attaching to it"))?;
        // Offloads stick to a persistent device, and the guest was promised none.
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, 0) })
            .map_err(failed("turning offloads off"))?;
        Ok(Tap(file))
    }

    pub(super) fn receive(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.0).read(frame) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match rustix::io::write(&self.0, frame) {
            Ok(_) => Ok(()),
            // Full, malformed, or the interface is down: a lost frame, as on any wire.
            Err(Errno::AGAIN | Errno::INVAL | Errno::IO | Errno::NOBUFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
