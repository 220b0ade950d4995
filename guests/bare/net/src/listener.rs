//! Listening on a port.

use crate::stack::Stack;
use alloc::vec::Vec;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;

/// Accepts connections on a port.
///
/// smoltcp has no backlog: a SYN needs a socket that listens, or it is answered with a reset. So there are always
/// [`Listener::SPARE`] of them, and whoever takes no more frames than that before the next [`Listener::accept`] turns
/// nobody away below the limit, however many come at once.
pub struct Listener {
    port: u16,
    /// Most connections at a time.
    limit: usize,
    open: usize,
    spare: Vec<SocketHandle>,
    options: Options,
}

/// How the sockets of a listener are set up.
#[derive(Clone, Copy)]
pub struct Options {
    /// Bytes of the receive and of the transmit buffer, each.
    pub buffer: usize,
    /// After how long to ask an idle peer whether it is still there.
    pub keep_alive: Option<Duration>,
    /// After how long without a sign of the peer to give it up.
    pub timeout: Duration,
}

impl Listener {
    /// Sockets that listen, unless limit or memory forbid.
    pub const SPARE: usize = 8;

    /// Listens on `port`, with at most `limit` connections at a time.
    pub fn new(stack: &mut Stack, port: u16, limit: usize, options: Options) -> Self {
        let mut listener = Self { port, limit, open: 0, spare: Vec::with_capacity(Self::SPARE), options };
        listener.refill(stack);
        listener
    }

    /// Connections that were accepted and not yet released.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The next socket that a peer has connected to. To be asked until it has none.
    pub fn accept(&mut self, stack: &mut Stack) -> Option<SocketHandle> {
        let mut handles = self.spare.iter();
        let index =
            handles.position(|&handle| stack.sockets.get::<Socket>(handle).state() != State::Listen)?;
        let handle = self.spare.swap_remove(index);
        self.open += 1;
        self.refill(stack);
        Some(handle)
    }

    /// Whether a socket has no connection any more and can be released, once what it had to say was transmitted.
    ///
    /// TIME-WAIT counts as no connection: its socket is worth more to the next peer than to the last one, which got its
    /// acknowledgement and at worst sees a reset when it has nothing left to lose.
    pub fn is_over(socket: &Socket) -> bool {
        // A peer that resets a connection before it is established puts the socket back to listening.
        matches!(socket.state(), State::Closed | State::TimeWait | State::Listen)
    }

    /// Takes back a socket that [`Listener::is_over`].
    pub fn release(&mut self, stack: &mut Stack, handle: SocketHandle) {
        self.open -= 1;
        let socket = stack.sockets.get_mut::<Socket>(handle);
        if self.spare.len() < Self::SPARE && socket.listen(self.port).is_ok() {
            self.spare.push(handle);
        } else {
            stack.sockets.remove(handle);
        }
    }

    /// Adds listening sockets, as far as limit and memory allow.
    fn refill(&mut self, stack: &mut Stack) {
        while self.spare.len() < Self::SPARE && self.open + self.spare.len() < self.limit {
            let Some(mut socket) = self.options.socket() else {
                return;
            };
            socket.listen(self.port).expect("a new socket can listen");
            self.spare.push(stack.sockets.add(socket));
        }
    }
}

impl Options {
    /// A socket, if there is memory for it.
    fn socket(&self) -> Option<Socket<'static>> {
        let mut socket = Socket::new(zeros(self.buffer)?, zeros(self.buffer)?);
        // Answers go out at the end of each burst; holding them back for a fuller segment would only add delay.
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(self.keep_alive);
        socket.set_timeout(Some(self.timeout));
        Some(socket)
    }
}

/// A buffer of zeros, if there is memory for it.
fn zeros(length: usize) -> Option<SocketBuffer<'static>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).ok()?;
    buffer.resize(length, 0);
    Some(SocketBuffer::new(buffer))
}
