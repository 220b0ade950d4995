//! The guest of these tests: a small key-value server on a TCP stack of its own, which speaks through whichever relay is
//! connected, and does what the test wants when the second one connects.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant as StackInstant,
    wire::{EthernetAddress, IpAddress, IpCidr},
};

/// What happens when the second relay connects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Takeover {
    /// Nothing: the guest goes on where it was.
    Exact,
    /// The last write is undone.
    ForgetOneWrite,
    /// One connection is forgotten, and so reset by its next segment.
    ResetOneConnection,
    /// The guest says nothing any more.
    Silence,
}

/// A guest that runs until it is dropped.
pub(crate) struct Guest {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    pub(crate) fn start(path: &Path, takeover: Takeover) -> Guest {
        let listener = UnixListener::bind(path).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || run(&listener, takeover, &stopped));
        Guest { stop, thread: Some(thread) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a guest that does not panic");
        }
    }
}

fn run(listener: &UnixListener, takeover: Takeover, stop: &AtomicBool) {
    let started = Instant::now();
    let now = || StackInstant::from_micros(started.elapsed().as_micros() as i64);
    let mut cable = Cable::default();
    let mut interface =
        Interface::new(Config::new(EthernetAddress([2, 0, 0, 0, 0, 2]).into()), &mut cable, now());
    interface.update_ip_addrs(|list| list.push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24)).expect("room"));
    let mut sockets = SocketSet::new(Vec::new());
    let mut services: Vec<(SocketHandle, Service)> =
        (0..16).map(|_| (sockets.add(listening()), Service::default())).collect();
    let mut store = Store::default();
    let mut relays = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            relays += 1;
            if relays == 2 {
                match takeover {
                    Takeover::Exact => {}
                    Takeover::ForgetOneWrite => store.undo(),
                    Takeover::ResetOneConnection => {
                        let open = services.iter().find(|(handle, _)| {
                            sockets.get::<tcp::Socket>(*handle).state() == tcp::State::Established
                        });
                        *sockets.get_mut(open.expect("an open connection").0) = listening();
                    }
                    Takeover::Silence => return,
                }
            }
            cable.connect(stream);
        }
        cable.pull();
        interface.poll(now(), &mut cable, &mut sockets);
        for (handle, service) in &mut services {
            service.serve(sockets.get_mut(*handle), &mut store);
        }
        interface.poll(now(), &mut cable, &mut sockets);
        cable.push();
        if cable.frames.is_empty() {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

fn listening() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 32 << 10]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.listen(6379).expect("a port");
    socket
}

/// The keys, and what the last SET replaced.
#[derive(Default)]
struct Store {
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
    replaced: Option<(Vec<u8>, Vec<u8>)>,
    /// A key whose next reader gets what was there before its last write. A write that was simply undone might be
    /// overwritten before anybody looks.
    forgotten: Option<(Vec<u8>, Vec<u8>)>,
}

impl Store {
    fn set(&mut self, key: &[u8], value: Vec<u8>) {
        let old = self.keys.insert(key.to_vec(), value);
        self.replaced = old.map(|old| (key.to_vec(), old)).or(self.replaced.take());
    }

    fn undo(&mut self) {
        self.forgotten = Some(self.replaced.take().expect("a write"));
    }

    fn forgotten(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.forgotten.take_if(|(forgotten, _)| forgotten == key).map(|(_, old)| old)
    }

    fn answer(&mut self, words: &[&[u8]]) -> Vec<u8> {
        match words {
            [b"SET", key, value] => {
                self.set(key, value.to_vec());
                b"+OK\r\n".to_vec()
            }
            [b"GET", key] => match self.forgotten(key).as_ref().or(self.keys.get(*key)) {
                Some(held) => [format!("${}\r\n", held.len()).as_bytes(), held, b"\r\n"].concat(),
                None => b"$-1\r\n".to_vec(),
            },
            [b"INCR", key] => {
                let held = self.keys.get(*key).map_or(0, |held| number(held).expect("a counter"));
                self.keys.insert(key.to_vec(), (held + 1).to_string().into_bytes());
                format!(":{}\r\n", held + 1).into_bytes()
            }
            _ => b"-ERR unknown command\r\n".to_vec(),
        }
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// One connection's bytes.
#[derive(Default)]
struct Service {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Service {
    fn serve(&mut self, socket: &mut tcp::Socket<'_>, store: &mut Store) {
        if !socket.is_active() {
            return;
        }
        while socket.can_recv() {
            let _ = socket.recv(|bytes| {
                self.input.extend_from_slice(bytes);
                (bytes.len(), ())
            });
        }
        let mut rest = &self.input[..];
        while let Some((words, after)) = request(rest) {
            self.output.extend(store.answer(&words));
            rest = after;
        }
        let read = self.input.len() - rest.len();
        self.input.drain(..read);
        if let Ok(sent) = socket.send_slice(&self.output) {
            self.output.drain(..sent);
        }
    }
}

/// Takes one whole request off.
fn request(bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let line = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        Some((number(&bytes[1..end - 1]).expect("a length"), end + 1))
    };
    let (count, mut at) = line(bytes)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, head) = line(&bytes[at..])?;
        words.push(bytes.get(at + head..at + head + length)?);
        at += head + length + 2;
    }
    Some((words, bytes.get(at..)?))
}

/// The guest's network device: whatever relay is connected now. Frames stand behind their length.
#[derive(Default)]
struct Cable {
    stream: Option<UnixStream>,
    incoming: Vec<u8>,
    frames: VecDeque<Vec<u8>>,
    outgoing: Vec<u8>,
}

impl Cable {
    fn connect(&mut self, stream: UnixStream) {
        stream.set_nonblocking(true).expect("a socket");
        *self = Cable { stream: Some(stream), ..Cable::default() };
    }

    fn pull(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(Ok(read)) = self.stream.as_mut().map(|stream| stream.read(&mut buffer)) {
            if read == 0 {
                self.stream = None;
            }
            self.incoming.extend_from_slice(&buffer[..read]);
        }
        while let Some(length) =
            self.incoming.first_chunk().map(|length| u32::from_be_bytes(*length) as usize)
        {
            let Some(frame) = self.incoming.get(4..4 + length) else {
                break;
            };
            self.frames.push_back(frame.to_vec());
            self.incoming.drain(..4 + length);
        }
    }

    fn push(&mut self) {
        let Some(stream) = &mut self.stream else {
            self.outgoing.clear();
            return;
        };
        match stream.write(&self.outgoing) {
            Ok(written) => drop(self.outgoing.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.stream = None,
        }
    }
}

impl Device for Cable {
    type RxToken<'a> = Received;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Outgoing<'_>)> {
        Some((Received(self.frames.pop_front()?), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Vec<u8>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.extend_from_slice(&(len as u32).to_be_bytes());
        let start = self.0.len();
        self.0.resize(start + len, 0);
        f(&mut self.0[start..])
    }
}
