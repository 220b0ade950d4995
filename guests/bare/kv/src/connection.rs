//! A connection: moves bytes between a socket and a session.

use core::mem::swap;
use service::buffers::{Input, OutOfMemory, Output};
use service::{Flow, Service, Session};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};

/// Buffers that connections lend each other: what is not empty stays with its connection, but most are empty at the end
/// of each burst, so that all connections work in the same few pages.
#[derive(Default)]
pub struct Spare {
    input: Input,
    output: Output,
}

/// A peer's connection.
pub struct Connection {
    /// Its socket.
    pub handle: SocketHandle,
    session: Session,
    input: Input,
    output: Output,
    /// The session is over; what it said last is still to be sent.
    closing: bool,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(handle: SocketHandle, session: Session) -> Self {
        Self { handle, session, input: Input::default(), output: Output::default(), closing: false }
    }

    /// What it speaks.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Answers what has come, as far as the answers find room.
    pub fn serve(&mut self, socket: &mut Socket, service: &mut Service, spare: &mut Spare) {
        if socket.can_recv() || !self.output.is_empty() {
            self.lend(spare);
            if self.converse(socket, service) == Err(OutOfMemory) {
                // The peer can't know what it missed.
                socket.abort();
                (self.input, self.output) = Default::default();
            }
            self.lend(spare);
        }
        let peer_left = socket.state() == State::CloseWait && !socket.can_recv();
        if (peer_left || self.closing) && self.output.is_empty() {
            socket.close();
        }
    }

    /// Takes the spare buffers in place of empty ones, or gives them back when they are empty again.
    fn lend(&mut self, spare: &mut Spare) {
        if self.input.is_empty() {
            swap(&mut self.input, &mut spare.input);
        }
        if self.output.is_empty() {
            swap(&mut self.output, &mut spare.output);
        }
    }

    /// Reads, answers and sends until there is nothing to read or no room to send.
    fn converse(&mut self, socket: &mut Socket, service: &mut Service) -> Result<(), OutOfMemory> {
        loop {
            self.flush(socket);
            if !self.output.is_empty() {
                return Ok(());
            }
            if self.closing {
                return discard(socket);
            }
            let flow = self.session.advance(&mut self.input, &mut self.output, service);
            self.closing = flow == Flow::Close;
            if self.output.is_lost() {
                return Err(OutOfMemory);
            }
            if self.output.is_empty() && !self.closing && !self.fill(socket)? {
                return Ok(());
            }
        }
    }

    /// Hands the socket what it has room for.
    fn flush(&mut self, socket: &mut Socket) {
        while socket.can_send() && !self.output.is_empty() {
            let Ok(sent) = socket.send_slice(self.output.unsent()) else {
                return;
            };
            self.output.sent(sent);
        }
    }

    /// Takes what the socket has received; returns whether that was anything.
    fn fill(&mut self, socket: &mut Socket) -> Result<bool, OutOfMemory> {
        let mut filled = false;
        while socket.can_recv() {
            let pushed = socket.recv(|bytes| (bytes.len(), self.input.push(bytes)));
            pushed.unwrap_or(Ok(()))?;
            filled = true;
        }
        Ok(filled)
    }
}

/// Throws away what a peer sends after the end, so that its own end can come through.
fn discard(socket: &mut Socket) -> Result<(), OutOfMemory> {
    // What lives on is not the connection but the wait for its end, and that has a limit.
    socket.set_keep_alive(None);
    while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
    Ok(())
}
