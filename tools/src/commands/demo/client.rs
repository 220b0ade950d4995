//! A client with a TCP stack of its own: nothing between it and the guest is the host's.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    time::{Duration, Instant},
};

use echovisor_event::limits;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::{Duration as StackDuration, Instant as StackInstant},
    wire::{EthernetAddress, IpCidr, IpEndpoint},
};
use tokio::{io::Interest, net::UnixStream, time::timeout};
use tokio_util::{
    bytes::{Buf, Bytes, BytesMut},
    codec::{Decoder, Encoder, LengthDelimitedCodec},
};

use crate::{model::Model, switch};

/// Where the client stands in the guest's network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) mac: [u8; 6],
    pub(super) own: IpCidr,
    pub(super) server: IpEndpoint,
}

/// Bytes of a connection's buffers, each way.
const BUFFER: usize = 64 << 10;

/// How long to wait before asking again, when the guest does not listen yet.
const RETRY: Duration = Duration::from_millis(50);

/// A client with several connections to one server.
pub(super) struct Client {
    port: SwitchPort,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    server: IpEndpoint,
    started: Instant,
    next_local_port: u16,
}

struct Connection {
    handle: SocketHandle,
    stage: Stage,
    unsent: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Not established yet; if it is refused, it is asked for again from then on.
    Opening {
        retry_at: Instant,
    },
    Established,
    /// It was established, and ended before the client ended it.
    Lost,
}

impl Client {
    /// Plugs a client into the switch at `path`. It has no connection yet.
    pub(super) async fn plug(path: &Path, addresses: Addresses, seed: u64) -> io::Result<Client> {
        let mut port = SwitchPort::new(UnixStream::connect(path).await?);
        let started = Instant::now();
        let mut config = Config::new(EthernetAddress(addresses.mac).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut port, StackInstant::ZERO);
        interface.update_ip_addrs(|list| {
            // A list of one always has room.
            let _ = list.push(addresses.own);
        });
        Ok(Client {
            port,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            server: addresses.server,
            started,
            next_local_port: 49152 + (seed % 8192) as u16,
        })
    }

    /// Opens this many connections more.
    pub(super) fn connect(&mut self, connections: usize) {
        for _ in 0..connections {
            let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_nagle_enabled(false);
            socket.set_ack_delay(None);
            let handle = self.sockets.add(socket);
            let stage = Stage::Opening { retry_at: Instant::now() };
            self.connections.push(Connection { handle, stage, unsent: Vec::new() });
        }
    }

    /// Whether every connection has been established.
    pub(super) fn is_connected(&self) -> bool {
        !self.connections.iter().any(|connection| matches!(connection.stage, Stage::Opening { .. }))
    }

    /// How many connections ended before the client ended them.
    pub(super) fn resets(&self) -> usize {
        self.connections.iter().filter(|connection| connection.stage == Stage::Lost).count()
    }

    /// Waits until there is something to do, at most for `patience`, and does it: frames, retransmissions, replies that
    /// the model checks, requests that it makes.
    pub(super) async fn turn(&mut self, model: &mut Model, patience: Duration) -> io::Result<()> {
        let due = self.interface.poll_delay(self.now(), &self.sockets).map(|due| due.total_micros());
        self.port.wait(patience.min(Duration::from_micros(due.unwrap_or(u64::MAX)))).await?;
        self.port.receive()?;
        self.interface.poll(self.now(), &mut self.port, &mut self.sockets);
        for number in 0..self.connections.len() {
            self.advance(number, model);
        }
        self.interface.poll(self.now(), &mut self.port, &mut self.sockets);
        self.port.send()
    }

    fn now(&self) -> StackInstant {
        StackInstant::ZERO + StackDuration::from_micros(self.started.elapsed().as_micros() as u64)
    }

    /// Moves one connection on.
    fn advance(&mut self, number: usize, model: &mut Model) {
        let connection = &mut self.connections[number];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        match (connection.stage, socket.state()) {
            (Stage::Opening { retry_at }, tcp::State::Closed) if retry_at <= Instant::now() => {
                let local = self.next_local_port;
                self.next_local_port = local.checked_add(1).unwrap_or(49152);
                connection.stage = Stage::Opening { retry_at: Instant::now() + RETRY };
                // The addresses are the client's own, so this cannot be refused; and if it is, it is tried again.
                let _ = socket.connect(self.interface.context(), self.server, local);
            }
            (Stage::Opening { .. }, tcp::State::Established) => connection.stage = Stage::Established,
            (Stage::Established, tcp::State::Established) => {}
            (Stage::Established, _) => {
                connection.stage = Stage::Lost;
                model.abandon(number);
            }
            _ => {}
        }
        if connection.stage != Stage::Established {
            return;
        }
        while socket.can_recv() {
            let taken = socket.recv(|bytes| {
                model.replies(number, bytes);
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
        }
        model.requests(number, &mut connection.unsent);
        if let Ok(sent) = socket.send_slice(&connection.unsent) {
            connection.unsent.drain(..sent);
        }
    }
}

/// A port of the switch, as the network device of the client's stack.
struct SwitchPort {
    stream: UnixStream,
    codec: LengthDelimitedCodec,
    incoming: BytesMut,
    frames: VecDeque<BytesMut>,
    outgoing: BytesMut,
}

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Bytes that may wait for the switch. The stack sends nothing beyond, and tries again later.
const OUTGOING_MAX: usize = 1 << 20;

impl SwitchPort {
    fn new(stream: UnixStream) -> SwitchPort {
        SwitchPort {
            stream,
            codec: switch::codec(),
            incoming: BytesMut::new(),
            frames: VecDeque::new(),
            outgoing: BytesMut::new(),
        }
    }

    /// Waits until frames have come, or can be sent if there are any; at most for `patience`.
    async fn wait(&self, patience: Duration) -> io::Result<()> {
        let writable = if self.outgoing.is_empty() { Interest::READABLE } else { Interest::WRITABLE };
        match timeout(patience, self.stream.ready(Interest::READABLE | writable)).await {
            Ok(ready) => ready.map(|_| ()),
            Err(_) => Ok(()),
        }
    }

    /// Takes what has come, about a burst. What stays in the socket ends the next wait at once.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            while let Some(frame) = self.codec.decode(&mut self.incoming)? {
                self.frames.push_back(frame);
            }
            if self.frames.len() >= limits::BURST_MAX {
                return Ok(());
            }
            self.incoming.reserve(CHUNK);
            match self.stream.try_read_buf(&mut self.incoming) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the switch is gone")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what the switch takes now.
    fn send(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.try_write(&self.outgoing) {
                Ok(written) => self.outgoing.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Device for SwitchPort {
    type RxToken<'a> = Received;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Outgoing<'_>)> {
        let frame = self.frames.pop_front()?;
        Some((Received(frame), Outgoing { codec: &mut self.codec, buffer: &mut self.outgoing }))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outgoing<'_>> {
        let room = self.outgoing.len() < OUTGOING_MAX;
        room.then_some(Outgoing { codec: &mut self.codec, buffer: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A frame from the switch.
struct Received(BytesMut);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame to the switch.
struct Outgoing<'a> {
    codec: &'a mut LengthDelimitedCodec,
    buffer: &'a mut BytesMut,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        // No frame of this stack is longer than a frame may be; one that were would be lost, as on any Ethernet.
        let _ = self.codec.encode(Bytes::from(frame), self.buffer);
        result
    }
}
