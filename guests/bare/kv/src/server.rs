//! The server: all connections on both ports.

use crate::connection::{Connection, Spare};
use crate::memory::{self, HTTP_CONNECTIONS, HTTP_SOCKETS, RESP_CONNECTIONS, RESP_SOCKETS};
use alloc::vec::Vec;
use net::{Addresses, Listener, Stack};
use rt::control;
use service::{Service, Session, Store, http, resp};

/// Where RESP is spoken.
pub const RESP_PORT: u16 = 6379;
/// Where HTTP is spoken.
pub const HTTP_PORT: u16 = 80;

/// Most connections at a time.
const CONNECTIONS: usize = RESP_CONNECTIONS + HTTP_CONNECTIONS;

/// Network, data, and who talks about them.
pub struct Server {
    stack: Stack,
    resp: Listener,
    http: Listener,
    connections: Vec<Connection>,
    service: Service,
    spare: Spare,
}

impl Server {
    /// The server, if the machine has a network.
    pub fn new(addresses: &Addresses) -> Option<Self> {
        let mut stack = Stack::new(addresses, CONNECTIONS)?;
        let [_, _, seeds @ ..] = control::seed();
        Some(Self {
            resp: Listener::new(&mut stack, RESP_PORT, RESP_CONNECTIONS, RESP_SOCKETS),
            http: Listener::new(&mut stack, HTTP_PORT, HTTP_CONNECTIONS, HTTP_SOCKETS),
            stack,
            connections: Vec::with_capacity(CONNECTIONS),
            service: Service::new(Store::new(seeds, memory::heap())),
            spare: Spare::default(),
        })
    }

    /// Takes all that has come, answers it, and sleeps until more comes.
    pub fn burst(&mut self) {
        self.service.now = control::clock();
        while self.stack.receive(Listener::SPARE) {
            self.accept();
        }
        self.accept();
        for connection in &mut self.connections {
            connection.serve(
                self.stack.sockets.get_mut(connection.handle),
                &mut self.service,
                &mut self.spare,
            );
        }
        self.stack.transmit();
        self.release();
        self.stack.wait(None);
    }

    /// Starts a session with everyone who has connected.
    fn accept(&mut self) {
        while let Some(handle) = self.resp.accept(&mut self.stack) {
            let id = self.service.stats.connections + 1;
            self.start(Connection::new(handle, Session::Resp(resp::Session::new(id))));
        }
        while let Some(handle) = self.http.accept(&mut self.stack) {
            self.start(Connection::new(handle, Session::Http(http::Session::default())));
        }
    }

    fn start(&mut self, connection: Connection) {
        self.connections.push(connection);
        self.service.stats.connections += 1;
        self.service.stats.open = self.connections.len();
    }

    /// Takes leave of everyone who has gone.
    fn release(&mut self) {
        let Self { stack, resp, http, connections, service, .. } = self;
        connections.retain(|connection| {
            let over = Listener::is_over(stack.sockets.get(connection.handle));
            if over {
                let listener = match connection.session() {
                    Session::Resp(_) => &mut *resp,
                    Session::Http(_) => &mut *http,
                };
                listener.release(stack, connection.handle);
            }
            !over
        });
        service.stats.open = connections.len();
    }
}
