//! An Ethernet switch whose ports are connections to a unix stream socket.
//!
//! Each frame stands behind its length, four bytes, big endian, as in the stream sockets of QEMU and passt. The switch
//! learns which port a hardware address is behind, and sends frames for other addresses everywhere. No port can hold up
//! another: where one does not take its frames fast enough they are dropped whole, as on any Ethernet. A port that sends
//! something that is no frame is closed, since nothing after a wrong length can be trusted.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use echovisor_event::limits;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{UnixListener, UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::{
    bytes::Bytes,
    codec::{FramedRead, FramedWrite, LengthDelimitedCodec},
};

/// Frames that may wait for one port: sixteen full bursts, at most 9 MiB.
const QUEUE_MAX: usize = 16 * limits::BURST_MAX;

/// Addresses that the switch remembers. Beyond them it still works, but sends everywhere.
const ADDRESSES_MAX: usize = 4096;

/// Bytes of an Ethernet header; nothing shorter is a frame.
const HEADER: usize = 14;

/// Bytes read or written at once.
const CHUNK: usize = 64 << 10;

type Address = [u8; 6];

/// How frames stand in the stream.
#[must_use]
pub fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(4).max_frame_length(limits::FRAME_MAX).new_codec()
}

/// A switch that works until it is dropped; then its socket and its connections are gone.
#[derive(Debug)]
pub struct Switch {
    path: PathBuf,
    fabric: Shared,
    task: JoinHandle<()>,
}

/// What one port has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The process at the other end.
    pub process: Option<i32>,
    /// Frames that came from it.
    pub frames_from: u64,
    /// Their bytes.
    pub bytes_from: u64,
    /// Frames for it.
    pub frames_to: u64,
    /// Their bytes.
    pub bytes_to: u64,
    /// Frames for it that were dropped, because too many waited already.
    pub dropped: u64,
}

impl Switch {
    /// Makes a switch with a socket at `path`.
    ///
    /// # Errors
    /// If there is something at `path` already, or if no socket can be made there.
    pub fn bind(path: &Path) -> io::Result<Switch> {
        let listener = UnixListener::bind(path)?;
        let fabric = Shared::default();
        let task = tokio::spawn(accept(listener, fabric.clone()));
        Ok(Switch { path: path.into(), fabric, task })
    }

    /// The ports that are connected now, in the order in which they came.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        self.fabric.lock().ports.values().map(|(port, _)| port.clone()).collect()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

type PortId = u64;

#[derive(Debug, Default)]
struct Fabric {
    ports: BTreeMap<PortId, (Port, mpsc::Sender<Bytes>)>,
    addresses: HashMap<Address, PortId>,
    next: PortId,
}

impl Fabric {
    fn connect(&mut self, process: Option<i32>) -> (PortId, mpsc::Receiver<Bytes>) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let id = self.next;
        self.next += 1;
        self.ports.insert(id, (Port { process, ..Port::default() }, sender));
        (id, queue)
    }

    fn disconnect(&mut self, id: PortId) {
        self.ports.remove(&id);
        self.addresses.retain(|_, port| *port != id);
    }

    /// Takes a frame from a port, and queues it for those that it concerns.
    fn forward(&mut self, from: PortId, frame: &Bytes) {
        let Some([to, source]) = frame.first_chunk().map(addresses) else {
            return;
        };
        if let Some((port, _)) = self.ports.get_mut(&from) {
            port.frames_from += 1;
            port.bytes_from += frame.len() as u64;
        }
        if !is_group(source) && (self.addresses.len() < ADDRESSES_MAX || self.addresses.contains_key(&source))
        {
            self.addresses.insert(source, from);
        }
        match self.addresses.get(&to) {
            Some(known) if *known == from => {}
            Some(known) => {
                if let Some(port) = self.ports.get_mut(known) {
                    enqueue(port, frame);
                }
            }
            None => {
                self.ports
                    .iter_mut()
                    .filter(|(id, _)| **id != from)
                    .for_each(|(_, port)| enqueue(port, frame));
            }
        }
    }
}

fn addresses(head: &[u8; 12]) -> [Address; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
    [[a, b, c, d, e, f], [g, h, i, j, k, l]]
}

/// Whether this is a broadcast or multicast address; those belong to no one port.
fn is_group(address: Address) -> bool {
    address[0] & 1 != 0
}

fn enqueue((port, sender): &mut (Port, mpsc::Sender<Bytes>), frame: &Bytes) {
    if sender.try_send(frame.clone()).is_ok() {
        port.frames_to += 1;
        port.bytes_to += frame.len() as u64;
    } else {
        port.dropped += 1;
    }
}

/// The lock is held for no longer than it takes to queue a frame.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Fabric>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Fabric> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: UnixListener, fabric: Shared) {
    // They end with this task.
    let mut ports = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                ports.spawn(serve(stream, fabric.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the switch could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while ports.try_join_next().is_some() {}
    }
}

/// Serves one port until it is gone.
async fn serve(stream: UnixStream, fabric: Shared) {
    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let (id, queue) = fabric.lock().connect(process);
    let (read, write) = stream.into_split();
    let ended = tokio::select! {
        ended = receive(read, id, &fabric) => ended,
        ended = send(write, queue) => ended,
    };
    fabric.lock().disconnect(id);
    match ended {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(port = id, process, %error, "a port of the switch was closed");
        }
        // However a process ends, its port ends with it.
        ended => tracing::debug!(port = id, process, ?ended, "a port of the switch ended"),
    }
}

async fn receive(read: OwnedReadHalf, id: PortId, fabric: &Shared) -> io::Result<()> {
    let mut frames = FramedRead::with_capacity(read, codec(), CHUNK);
    while let Some(frame) = frames.next().await {
        let frame = frame?.freeze();
        if frame.len() < HEADER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is shorter than its header"));
        }
        fabric.lock().forward(id, &frame);
    }
    Ok(())
}

async fn send(write: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut frames = FramedWrite::new(write, codec());
    frames.set_backpressure_boundary(CHUNK);
    let mut burst = Vec::with_capacity(limits::BURST_MAX);
    while queue.recv_many(&mut burst, limits::BURST_MAX).await > 0 {
        for frame in burst.drain(..) {
            frames.feed(frame).await?;
        }
        SinkExt::<Bytes>::flush(&mut frames).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    const BROADCAST: u8 = 0xff;

    /// A frame from one station to another; a station's address is its number six times, which is no group's if even.
    fn frame(to: u8, from: u8, payload: &[u8]) -> Vec<u8> {
        [&[to; 6][..], &[from; 6], &[8, 0], payload].concat()
    }

    struct Lan {
        folder: TempDir,
        switch: Switch,
    }

    impl Lan {
        fn new() -> Lan {
            let folder = tempfile::tempdir().expect("a folder");
            let switch = Switch::bind(&folder.path().join("net")).expect("a switch");
            Lan { folder, switch }
        }

        async fn plug(&self) -> Plug {
            let before = self.switch.ports().len();
            let stream = UnixStream::connect(self.folder.path().join("net")).await.expect("a connection");
            self.until(|ports| ports.len() > before).await;
            Plug(stream)
        }

        async fn until(&self, condition: impl Fn(&[Port]) -> bool) {
            let met = async {
                while !condition(&self.switch.ports()) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(10), met)
                .await
                .unwrap_or_else(|_| panic!("{:?}", self.switch.ports()));
        }
    }

    struct Plug(UnixStream);

    impl Plug {
        async fn send(&mut self, frame: &[u8]) {
            self.0.write_u32(frame.len() as u32).await.expect("sent");
            self.0.write_all(frame).await.expect("sent");
        }

        async fn receive(&mut self) -> Vec<u8> {
            let frame = async {
                let mut frame = vec![0; self.0.read_u32().await.expect("a length") as usize];
                self.0.read_exact(&mut frame).await.expect("a frame");
                frame
            };
            timeout(Duration::from_secs(10), frame).await.expect("in time")
        }

        /// Whether nothing has come, once everything sent so far by others has been forwarded.
        fn is_quiet(&self) -> bool {
            self.0.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        }
    }

    #[tokio::test]
    async fn unknown_and_group_addresses_go_everywhere_known_ones_to_their_port() {
        let lan = Lan::new();
        let (mut a, mut b, mut c) = (lan.plug().await, lan.plug().await, lan.plug().await);
        let unknown = frame(4, 2, b"who is 4?");
        a.send(&unknown).await;
        assert_eq!(b.receive().await, unknown);
        assert_eq!(c.receive().await, unknown);
        let answer = frame(2, 4, b"I am");
        b.send(&answer).await;
        assert_eq!(a.receive().await, answer);
        let known = frame(4, 2, b"for you");
        a.send(&known).await;
        assert_eq!(b.receive().await, known);
        let everyone = frame(BROADCAST, 4, b"hello");
        b.send(&everyone).await;
        assert_eq!(a.receive().await, everyone);
        assert_eq!(c.receive().await, everyone, "and nothing before it");
        assert!(a.is_quiet(), "no frame comes back to its sender");
        let ports = lan.switch.ports();
        assert_eq!(ports[0].process, Some(std::process::id().cast_signed()));
        assert_eq!((ports[0].frames_from, ports[0].frames_to), (2, 2));
        assert_eq!(ports[0].bytes_from, (unknown.len() + known.len()) as u64);
        assert_eq!((ports[2].frames_from, ports[2].frames_to), (0, 2));
    }

    #[tokio::test]
    async fn an_address_moves_with_its_announcement() {
        let lan = Lan::new();
        let (mut client, mut old, mut new) = (lan.plug().await, lan.plug().await, lan.plug().await);
        old.send(&frame(BROADCAST, 6, b"mine")).await;
        client.receive().await;
        new.receive().await;
        new.send(&frame(BROADCAST, 6, b"mine now")).await;
        client.receive().await;
        old.receive().await;
        let request = frame(6, 2, b"request");
        client.send(&request).await;
        assert_eq!(new.receive().await, request);
        assert!(old.is_quiet());
    }

    #[tokio::test]
    async fn what_was_behind_a_closed_port_is_looked_for_everywhere() {
        let lan = Lan::new();
        let (mut a, mut b, mut c) = (lan.plug().await, lan.plug().await, lan.plug().await);
        b.send(&frame(BROADCAST, 4, b"")).await;
        a.receive().await;
        c.receive().await;
        drop(b);
        lan.until(|ports| ports.len() == 2).await;
        let request = frame(4, 2, b"still there?");
        a.send(&request).await;
        assert_eq!(c.receive().await, request);
    }

    #[tokio::test]
    async fn only_the_port_that_sends_no_frames_is_closed() {
        for malformed in [0_u32, HEADER as u32 - 1, limits::FRAME_MAX as u32 + 1, u32::MAX] {
            let lan = Lan::new();
            let (mut a, mut b, mut bad) = (lan.plug().await, lan.plug().await, lan.plug().await);
            bad.0.write_u32(malformed).await.expect("sent");
            bad.0.write_all(&[0; HEADER - 1]).await.expect("sent");
            lan.until(|ports| ports.len() == 2).await;
            let good = frame(BROADCAST, 2, &[7; limits::FRAME_MAX - HEADER]);
            a.send(&good).await;
            assert_eq!(b.receive().await, good, "length {malformed}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_not_read_loses_whole_frames_and_holds_up_nobody() {
        const FRAMES: u32 = 4 * QUEUE_MAX as u32;
        let lan = Lan::new();
        let (mut a, mut b, mut slow) = (lan.plug().await, lan.plug().await, lan.plug().await);
        let numbered = |n: u32| frame(BROADCAST, 2, &[&n.to_be_bytes()[..], &[0; 1000]].concat());
        for n in 0..FRAMES {
            a.send(&numbered(n)).await;
            assert_eq!(b.receive().await, numbered(n));
        }
        let port = lan.switch.ports()[2].clone();
        assert!(port.dropped > 0, "{port:?}");
        assert_eq!(port.frames_to + port.dropped, u64::from(FRAMES));
        for n in 0..port.frames_to {
            assert_eq!(slow.receive().await, numbered(n as u32), "what was queued arrives whole, in order");
        }
    }

    #[tokio::test]
    async fn a_frame_may_come_in_pieces_or_never_end() {
        let lan = Lan::new();
        let (mut a, mut b) = (lan.plug().await, lan.plug().await);
        let whole = frame(BROADCAST, 2, b"in pieces");
        let stream = [&(whole.len() as u32).to_be_bytes()[..], &whole].concat();
        for piece in stream.chunks(3) {
            a.0.write_all(piece).await.expect("sent");
            a.0.flush().await.expect("sent");
            tokio::task::yield_now().await;
        }
        assert_eq!(b.receive().await, whole);
        a.0.write_all(&stream[..10]).await.expect("sent");
        drop(a);
        lan.until(|ports| ports.len() == 1).await;
        assert!(b.is_quiet(), "half a frame is none");
    }

    #[tokio::test]
    async fn a_switch_leaves_nothing_behind() {
        let lan = Lan::new();
        let mut plug = lan.plug().await;
        let path = lan.folder.path().join("net");
        assert!(Switch::bind(&path).is_err(), "the path is taken");
        drop(lan.switch);
        assert!(!path.exists());
        assert_eq!(
            timeout(Duration::from_secs(10), plug.0.read(&mut [0])).await.expect("in time").ok(),
            Some(0)
        );
    }
}
