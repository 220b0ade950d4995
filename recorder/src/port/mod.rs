//! Where the guest's frames come from and go to.

mod stream;
mod tap;

use echovisor_event::limits::{BURST_MAX, FRAME_MAX};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The TAP device cannot be used.
    #[error("TAP device {name}: {what}: {source}")]
    Tap {
        /// Its name.
        name: String,
        /// What failed.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The socket cannot be reached.
    #[error("cannot connect to the frame socket {}: {source}", path.display())]
    Unix {
        /// Its path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl PortError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            PortError::Tap { name, source, .. } => match source.kind() {
                io::ErrorKind::NotFound => {
                    format!("create it: ip tuntap add {name} mode tap && ip link set {name} up")
                }
                io::ErrorKind::PermissionDenied => {
                    format!(
                        "run as root, or give the device to your user: ip tuntap add {name} mode tap user $USER"
                    )
                }
                io::ErrorKind::ResourceBusy => {
                    "another process has the device open; give each VM its own".into()
                }
                _ => "check the device with: ip -details link show type tun".into(),
            },
            PortError::Unix { .. } => {
                "start what listens there first: passt, QEMU's -netdev stream, or a switch".into()
            }
        }
    }
}

/// A way for frames. Clones share it: the guest's thread receives, and whoever learns of an acknowledgement sends.
#[derive(Clone)]
pub enum Port {
    /// A TAP device.
    Tap(Arc<tap::Tap>),
    /// A frame socket.
    Stream(Arc<stream::Stream>),
}

impl Port {
    /// Opens the TAP device `name`, which must exist.
    ///
    /// # Errors
    /// If it is not there or may not be used.
    pub fn tap(name: &str) -> Result<Port, PortError> {
        Ok(Port::Tap(Arc::new(tap::Tap::open(name)?)))
    }

    /// Connects to the frame socket at `path`: frames behind a 4-byte big-endian length, as QEMU and passt speak.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn stream(path: &Path) -> Result<Port, PortError> {
        Ok(Port::Stream(Arc::new(stream::Stream::connect(path)?)))
    }

    /// The next frame that has come, if there is one; never blocks.
    ///
    /// # Errors
    /// If the other side is gone for good.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Port::Tap(tap) => tap.receive(frame),
            Port::Stream(stream) => stream.receive(frame),
        }
    }

    /// Sends a frame, or loses it if the way is full.
    ///
    /// # Errors
    /// If the other side is gone for good.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self {
            Port::Tap(tap) => tap.send(frame),
            Port::Stream(stream) => stream.send(frame),
        }
    }

    /// Throws away what has come in, at most a burst of it; whether that was all.
    ///
    /// # Errors
    /// If the other side is gone for good.
    pub fn drain(&self) -> io::Result<bool> {
        let mut frame = [0; FRAME_MAX];
        for _ in 0..BURST_MAX {
            if self.receive(&mut frame)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Port::Tap(tap) => tap.as_fd(),
            Port::Stream(stream) => stream.as_fd(),
        }
    }
}
