//! A client of the key-value server with several connections, which knows of each reply what it answers.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    failure::Failure,
    lab::{GUEST, Namespace},
    model::resp::{Reply, read_reply},
};

/// How long a guest may take until it answers, and how long it may be silent under load.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one attempt to connect may take, and how soon the next one comes. Where each answer of the guest waits for megabytes on a thin
/// link, a connection is there after seconds, and an attempt that is given up before comes to nothing.
const ATTEMPT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// A connection from the clients' namespace to a service of the guest, as soon as that is up.
pub(super) fn connect(client: &Namespace, port: u16) -> Result<TcpStream, Failure> {
    // The address is a constant.
    let address = SocketAddr::new(GUEST.parse().unwrap_or(IpAddr::from([0; 4])), port);
    let begun = Instant::now();
    loop {
        match client.enter(|| TcpStream::connect_timeout(&address, ATTEMPT))? {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
                return Ok(stream);
            }
            Err(_) if begun.elapsed() < PATIENCE => thread::sleep(PAUSE),
            Err(error) => return Err(unreachable(error)),
        }
    }
}

fn unreachable(error: io::Error) -> Failure {
    let hint = "see what the nodes said last; RUST_LOG=debug makes them say more";
    Failure::new("the guest does not answer", hint).because(error)
}

/// Several connections.
pub(super) struct Client {
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    heard: Instant,
}

struct Connection {
    stream: TcpStream,
    unsent: VecDeque<u8>,
    received: Vec<u8>,
    /// Of the requests without a reply, when each should have been sent.
    waiting: VecDeque<Instant>,
}

impl Client {
    /// Opens the connections, as soon as the guest is up.
    pub(super) fn connect(client: &Namespace, port: u16, connections: usize) -> Result<Client, Failure> {
        let open = || {
            let stream = connect(client, port)?;
            stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).map_err(unreachable)?;
            Ok(Connection { stream, unsent: VecDeque::new(), received: Vec::new(), waiting: VecDeque::new() })
        };
        // All at once: one behind the other they would take as many times as long as an answer may take.
        let connections = thread::scope(|scope| {
            let opening: Vec<_> = (0..connections).map(|_| scope.spawn(open)).collect();
            let opened =
                opening.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            opened.collect::<Result<_, Failure>>()
        })?;
        Ok(Client { connections, buffer: vec![0; CHUNK], heard: Instant::now() })
    }

    /// A client on which nothing is under way: this one, or else another one with as many connections. What a warm-up leaves unanswered
    /// would be in the way.
    pub(super) fn rested(self, client: &Namespace, port: u16) -> Result<Client, Failure> {
        if self.waiting().next().is_none() {
            return Ok(self);
        }
        let connections = self.len();
        drop(self);
        Client::connect(client, port, connections)
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// When each request that has no reply yet should have been sent.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Instant> {
        self.connections.iter().flat_map(|connection| connection.waiting.iter().copied())
    }

    /// Adds a request to what a connection has to send. It should have been sent at `at`.
    pub(super) fn request(&mut self, connection: usize, request: &[u8], at: Instant) {
        let connection = &mut self.connections[connection];
        connection.unsent.extend(request);
        connection.waiting.push_back(at);
    }

    /// Sends what can be sent, waits until something has come, at most until `deadline`, and tells of each reply its connection and
    /// when its request should have been sent.
    pub(super) fn turn(
        &mut self,
        deadline: Instant,
        mut replied: impl FnMut(usize, Instant),
    ) -> Result<(), Failure> {
        self.send().and_then(|()| self.wait(deadline)).map_err(unreachable)?;
        let before = self.waiting().count();
        for number in 0..self.connections.len() {
            self.receive(number, &mut replied)?;
        }
        if before == 0 || self.waiting().count() < before {
            self.heard = Instant::now();
        }
        match self.heard.elapsed() {
            silence if silence > PATIENCE => Err(unreachable(io::ErrorKind::TimedOut.into())),
            _ => Ok(()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        for Connection { stream, unsent, .. } in &mut self.connections {
            while !unsent.is_empty() {
                match stream.write(unsent.as_slices().0) {
                    Ok(sent) => drop(unsent.drain(..sent)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn wait(&self, deadline: Instant) -> io::Result<()> {
        let wanted = |unsent: &VecDeque<u8>| match unsent.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::IN | PollFlags::OUT,
        };
        let connections = self.connections.iter();
        let mut polled: Vec<PollFd> = connections
            .map(|connection| PollFd::new(&connection.stream, wanted(&connection.unsent)))
            .collect();
        let left = deadline.saturating_duration_since(Instant::now()).min(PATIENCE);
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut polled, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self, number: usize, replied: &mut impl FnMut(usize, Instant)) -> Result<(), Failure> {
        let Connection { stream, received, waiting, .. } = &mut self.connections[number];
        match stream.read(&mut self.buffer) {
            Ok(0) => return Err(unreachable(io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => received.extend_from_slice(&self.buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(unreachable(error)),
        }
        let mut rest = &received[..];
        while let Some(reply) = read_reply(&mut rest).map_err(|_| wrong("no reply"))? {
            if let Reply::Error(text) = reply {
                return Err(wrong(&String::from_utf8_lossy(text)));
            }
            let at = waiting.pop_front().ok_or_else(|| wrong("a reply to nothing"))?;
            replied(number, at);
        }
        let taken = received.len() - rest.len();
        received.drain(..taken);
        Ok(())
    }
}

fn wrong(what: &str) -> Failure {
    Failure::new(
        format!("the guest answers wrongly: {what}"),
        "please report it, with the command that was given",
    )
}
