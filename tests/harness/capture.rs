//! What passes an interface, seen from outside of the programs that are tested.

use std::{
    io::IoSliceMut,
    mem,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    libc,
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
            SockaddrLike, bind, recvmsg, setsockopt, socket, sockopt,
        },
        time::{TimeSpec, TimeVal, TimeValLike},
    },
};

use crate::{LIMIT, Namespace};

/// Bytes that wait in the kernel while the capturing thread does not run.
const BUFFER: usize = 64 << 20;

/// The longest frame: a segment that the kernel has not cut yet.
const LONGEST: usize = 128 << 10;

/// How often a capture without traffic looks whether it shall end.
const GLANCE_MS: i64 = 20;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the kernel saw it, since the UNIX epoch, on the clock that all interfaces of this host share.
    pub at: Duration,
    /// Whether the host sent it out through this interface; else it came in.
    pub outgoing: bool,
    /// From the Ethernet header on.
    pub bytes: Arc<[u8]>,
}

/// Keeps every frame that passes an interface until it is dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: Mutex<Taken>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    frames: Vec<Frame>,
    /// Everything that passed before has been taken.
    until: Duration,
    /// Frames for which the kernel had no room.
    lost: u32,
    ended: bool,
}

impl Capture {
    /// Begins to capture.
    ///
    /// # Panics
    /// If there is no such interface, or packet sockets are forbidden.
    #[must_use]
    pub fn start(namespace: &Namespace, interface: &str) -> Capture {
        let socket = namespace.enter(|| packet_socket(interface));
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        thread::spawn(move || told.take(&socket));
        Capture { shared }
    }

    /// The time now, on the clock of [`Frame::at`].
    ///
    /// # Panics
    /// If the host's clock is before 1970.
    #[must_use]
    pub fn now() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set")
    }

    /// All frames that have passed before this call.
    ///
    /// # Panics
    /// If some could not be captured.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        let now = Capture::now();
        let waiting = |taken: &mut Taken| taken.until < now;
        let (taken, late) = self
            .shared
            .news
            .wait_timeout_while(self.shared.lock(), LIMIT, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!late.timed_out(), "the capture has stopped");
        assert_eq!(taken.lost, 0, "frames were not captured");
        taken.frames.clone()
    }

    /// Those of them that came in from outside of the host's network stack: at a TAP, what the guest has sent.
    ///
    /// # Panics
    /// As [`Capture::frames`].
    #[must_use]
    pub fn incoming(&self) -> Vec<Frame> {
        self.frames().into_iter().filter(|frame| !frame.outgoing).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes frames until the capture ends.
    fn take(&self, socket: &OwnedFd) {
        let mut buffer = vec![0; LONGEST];
        loop {
            let before = Capture::now();
            let frame = receive(socket, &mut buffer);
            let mut taken = self.lock();
            match frame {
                Some((frame, lost)) => {
                    taken.lost = taken.lost.max(lost);
                    taken.until = frame.at;
                    taken.frames.push(frame);
                }
                None => taken.until = before,
            }
            if mem::take(&mut taken.ended) {
                return;
            }
            self.news.notify_all();
        }
    }
}

/// A socket that hears everything on an interface.
fn packet_socket(interface: &str) -> OwnedFd {
    let index = if_nametoindex(interface).unwrap_or_else(|error| panic!("{interface}: {error}"));
    // No protocol, so that nothing comes in before it is bound to the interface.
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).expect("a packet socket");
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("room for what waits");
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("times");
    setsockopt(&socket, sockopt::RxqOvfl, &1).expect("a count of what is lost");
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(GLANCE_MS)).expect("a time limit");
    // SAFETY: all zeros are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = SockProtocol::EthAll as u16;
    address.sll_ifindex = i32::try_from(index).expect("a small number");
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: it points to a sockaddr_ll of that length, which the call copies.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    bind(socket.as_raw_fd(), &address.expect("an address of a link")).expect("an interface to listen on");
    socket
}

/// The next frame, and how many have been lost so far; none if there is none yet.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(Frame, u32)> {
    let mut control = nix::cmsg_space!(TimeSpec, u32);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
    let message = match received {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR) => return None,
        Err(error) => panic!("capturing: {error}"),
    };
    assert!(!message.flags.contains(MsgFlags::MSG_TRUNC), "a frame of more than {LONGEST} bytes");
    let (mut at, mut lost) = (None, 0);
    for part in message.cmsgs().expect("room for both") {
        match part {
            ControlMessageOwned::ScmTimestampns(time) => at = Some(Duration::from(time)),
            ControlMessageOwned::RxqOvfl(count) => lost = count,
            _ => {}
        }
    }
    let outgoing = message.address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
    let length = message.bytes;
    let at = at.expect("the kernel stamps every frame");
    Some((Frame { at, outgoing, bytes: buffer[..length].into() }, lost))
}
