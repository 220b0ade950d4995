//! The network side: answers each line.

use alloc::vec::Vec;
use core::fmt::{Display, Write};
use net::{Addresses, Listener, Options, Stack};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Duration;

const PORT: u16 = 7;
const CONNECTIONS: usize = 16;
/// Room for one answer.
const ANSWER_MAX: usize = 64;
const OPTIONS: Options =
    Options { buffer: 4096, keep_alive: Some(Duration::from_secs(60)), timeout: Duration::from_secs(180) };

/// A server of lines.
pub struct Lines {
    stack: Stack,
    listener: Listener,
    connections: Vec<SocketHandle>,
}

impl Lines {
    /// The server, if the machine has a network.
    pub fn new() -> Option<Self> {
        let mut stack = Stack::new(&Addresses::from_arguments(), CONNECTIONS)?;
        let listener = Listener::new(&mut stack, PORT, CONNECTIONS, OPTIONS);
        Some(Self { stack, listener, connections: Vec::with_capacity(CONNECTIONS) })
    }

    /// Answers each line that has come with `answer`, and rings the doorbell without sleeping.
    pub fn serve(&mut self, answer: &impl Display) {
        while self.stack.receive(Listener::SPARE) {
            self.accept();
        }
        self.accept();
        for &handle in &self.connections {
            reply(self.stack.sockets.get_mut(handle), answer);
        }
        self.stack.transmit();
        let Self { stack, listener, connections } = self;
        connections.retain(|&handle| {
            let over = Listener::is_over(stack.sockets.get(handle));
            if over {
                listener.release(stack, handle);
            }
            !over
        });
        stack.wait(Some(0));
    }

    fn accept(&mut self) {
        while let Some(handle) = self.listener.accept(&mut self.stack) {
            self.connections.push(handle);
        }
    }
}

/// Answers the lines of one connection, as long as there is room for answers.
fn reply(socket: &mut Socket, answer: &impl Display) {
    while socket.can_recv() && socket.send_capacity() - socket.send_queue() >= ANSWER_MAX {
        let line = socket.recv(|bytes| match bytes.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (bytes.len(), false),
        });
        if line == Ok(true) {
            let _ = writeln!(socket, "{answer}");
        }
    }
    if socket.state() == State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}
