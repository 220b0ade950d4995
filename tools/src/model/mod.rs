//! A load on a key-value server, every reply of which can be checked.
//!
//! The model knows no transport: [`Model::requests`] gives the bytes that a connection has to send, [`Model::replies`]
//! takes what came back, and checks it. A server answers the requests of one connection in order, and on each connection
//! the model writes to keys that no other connection writes to, so it can foretell most replies exactly, and whatever the
//! timing: every register holds the last value written to it, every value was written only once, every counter of a
//! connection's own goes up by one. Of a counter that all connections share it knows that no number is given out twice, and
//! that one asked for after another was received is higher. When the load is over, everything is read back.
//!
//! What it looks for are acknowledged writes that are gone, and replies that no history of the requests explains.
//!
//! ```no_run
//! use std::{io::{Read, Write}, net::TcpStream};
//! use echovisor_tools::model::{Load, Model};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut server = TcpStream::connect("10.0.0.2:6379")?;
//! let mut model = Model::new(Load { seed: 7, connections: 1, depth: 1, keys: 16 });
//! while !model.is_done() {
//!     let mut requests = Vec::new();
//!     model.requests(0, &mut requests);
//!     server.write_all(&requests)?;
//!     let mut replies = [0; 4096];
//!     let received = server.read(&mut replies)?;
//!     model.replies(0, &replies[..received]);
//!     if model.tally().replies >= 1000 {
//!         model.read_back();
//!     }
//! }
//! assert_eq!(model.faults(), []);
//! # Ok(())
//! # }
//! ```

pub(crate) mod resp;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::RangeInclusive,
};

use fastrand::Rng;
use resp::{NotAReply, Reply, read_reply, write_request};

/// What to ask of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The same seed gives the same requests on each connection. Two loads on one server must differ in it.
    pub seed: u64,
    /// How many connections there are.
    pub connections: usize,
    /// Requests under way on a connection that does not wait for each reply. Every second connection does wait.
    pub depth: usize,
    /// Keys of each connection.
    pub keys: usize,
}

/// Counters that all connections share.
const SHARED_COUNTERS: usize = 4;

/// One key in this many is a counter, the others are registers.
const COUNTER_STRIDE: usize = 4;

/// Faults that are kept with their text. After the first ones, more explain nothing.
const FAULTS_KEPT: usize = 16;

/// How a server went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A write was acknowledged, and is gone.
    Lost,
    /// No history of the requests explains the reply.
    Wrong,
    /// A reply to nothing.
    Unasked,
    /// Not the protocol.
    Garbled,
}

/// One reply that should not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// On which connection.
    pub connection: usize,
    /// How it is wrong.
    pub kind: FaultKind,
    /// What was asked, expected and found.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Lost => "an acknowledged write is gone",
            FaultKind::Wrong => "a reply is wrong",
            FaultKind::Unasked => "a reply to nothing",
            FaultKind::Garbled => "not a reply",
        };
        write!(f, "{kind}: connection {}: {}", self.connection, self.text)
    }
}

/// What has been seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent.
    pub sent: u64,
    /// Replies received and checked.
    pub replies: u64,
    /// Writes among them.
    pub writes_acknowledged: u64,
    /// Acknowledged writes found to be gone; at least so many.
    pub acknowledged_lost: u64,
    /// Faults of any kind.
    pub faults: u64,
}

/// The load, its state as the server must have it, and what was found.
#[derive(Debug)]
pub struct Model {
    load: Load,
    connections: Vec<Connection>,
    keys: Vec<Key>,
    /// The next key to read back; `None` while the load goes on.
    cursor: Option<usize>,
    tally: Tally,
    /// Per key, the most writes that any one reply showed to be gone.
    lost: BTreeMap<usize, u64>,
    faults: Vec<Fault>,
}

#[derive(Debug)]
struct Connection {
    random: Rng,
    depth: usize,
    expected: VecDeque<Expected>,
    input: Vec<u8>,
    replies: u64,
    alive: bool,
}

/// A key of the server. What is written to it is numbered: the versions of a register, the counts of a counter.
#[derive(Clone, Debug)]
struct Key {
    name: String,
    kind: KeyKind,
    /// Writes sent.
    sent: u64,
    /// Writes acknowledged.
    acknowledged: u64,
    /// Of a shared counter: which numbers were given out, and the highest.
    drawn: Vec<bool>,
    highest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Register,
    Counter,
    Shared,
}

/// The reply to a request that is under way. Numbers of writes are versions or counts.
#[derive(Clone, Debug)]
enum Expected {
    /// To SET: done.
    Stored { key: usize },
    /// To INCR of a connection's own counter: exactly this.
    Counted { key: usize, count: u64 },
    /// To INCR of a shared counter: a new number above this.
    Drawn { key: usize, above: u64 },
    /// To GET: what one of these writes left; 0 is the state before the first.
    Held { key: usize, writes: RangeInclusive<u64> },
}

impl Model {
    /// A load that has not begun.
    #[must_use]
    pub fn new(load: Load) -> Model {
        let own = |connection: usize| {
            (0..load.keys).map(move |n| {
                let kind = if n % COUNTER_STRIDE == 0 { KeyKind::Counter } else { KeyKind::Register };
                Key::new(format!("{:x}.{connection}.{n}", load.seed), kind)
            })
        };
        let shared =
            (0..SHARED_COUNTERS).map(|n| Key::new(format!("{:x}.shared.{n}", load.seed), KeyKind::Shared));
        let connections = (0..load.connections).map(|n| Connection {
            random: Rng::with_seed(mix(load.seed, n as u64, 0)),
            depth: if n % 2 == 0 { 1 } else { load.depth.max(1) },
            expected: VecDeque::new(),
            input: Vec::new(),
            replies: 0,
            alive: true,
        });
        Model {
            load,
            connections: connections.collect(),
            keys: (0..load.connections).flat_map(own).chain(shared).collect(),
            cursor: None,
            tally: Tally::default(),
            lost: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    /// Appends to `out` what `connection` has to send now. Ask each connection whenever something has come on any of
    /// them.
    pub fn requests(&mut self, connection: usize, out: &mut Vec<u8>) {
        while let Some(expected) = self.next_request(connection, out) {
            self.connections[connection].expected.push_back(expected);
            self.tally.sent += 1;
        }
    }

    fn next_request(&mut self, connection: usize, out: &mut Vec<u8>) -> Option<Expected> {
        let Connection { alive, depth, expected, .. } = &self.connections[connection];
        if !alive {
            return None;
        }
        let Some(cursor) = self.cursor else {
            return (expected.len() < *depth).then(|| self.next_of_load(connection, out));
        };
        // What a key must hold is certain once no write is under way.
        if expected.len() >= self.load.depth.max(1) || self.writes_under_way() {
            return None;
        }
        let key = self.keys.get(cursor)?;
        self.cursor = Some(cursor + 1);
        write_request(&[b"GET", key.name.as_bytes()], out);
        Some(Expected::Held { key: cursor, writes: key.acknowledged..=key.sent })
    }

    fn next_of_load(&mut self, connection: usize, out: &mut Vec<u8>) -> Expected {
        let random = &mut self.connections[connection].random;
        let key = if self.load.keys == 0 || random.u32(..100) < 15 {
            self.load.connections * self.load.keys + random.usize(..SHARED_COUNTERS)
        } else {
            connection * self.load.keys + random.usize(..self.load.keys)
        };
        let read = random.u32(..100) < 40;
        let Key { name, kind, sent, highest, .. } = &mut self.keys[key];
        match kind {
            KeyKind::Register | KeyKind::Counter if read => {
                write_request(&[b"GET", name.as_bytes()], out);
                Expected::Held { key, writes: *sent..=*sent }
            }
            KeyKind::Register => {
                *sent += 1;
                let value = value(self.load.seed, name, *sent);
                write_request(&[b"SET", name.as_bytes(), value.as_bytes()], out);
                Expected::Stored { key }
            }
            KeyKind::Counter => {
                *sent += 1;
                write_request(&[b"INCR", name.as_bytes()], out);
                Expected::Counted { key, count: *sent }
            }
            KeyKind::Shared => {
                *sent += 1;
                write_request(&[b"INCR", name.as_bytes()], out);
                Expected::Drawn { key, above: *highest }
            }
        }
    }

    fn writes_under_way(&self) -> bool {
        let is_write = |expected: &Expected| !matches!(expected, Expected::Held { .. });
        self.connections.iter().any(|connection| connection.expected.iter().any(is_write))
    }

    /// Takes what came on a connection, in pieces of any size, and checks every reply that is complete.
    pub fn replies(&mut self, connection: usize, bytes: &[u8]) {
        let mut input = std::mem::take(&mut self.connections[connection].input);
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        while self.connections[connection].alive {
            match read_reply(&mut rest) {
                Ok(Some(reply)) => self.check(connection, reply),
                Ok(None) => break,
                Err(NotAReply) => {
                    let start = &rest[..rest.len().min(40)];
                    self.fault(connection, FaultKind::Garbled, format!("\"{}\"", start.escape_ascii()));
                    self.abandon(connection);
                }
            }
        }
        let read = input.len() - rest.len();
        input.drain(..read);
        self.connections[connection].input = input;
    }

    fn check(&mut self, connection: usize, reply: Reply<'_>) {
        let Some(expected) = self.connections[connection].expected.pop_front() else {
            return self.fault(connection, FaultKind::Unasked, show(reply));
        };
        self.tally.replies += 1;
        self.connections[connection].replies += 1;
        let seed = self.load.seed;
        let (Expected::Stored { key: index }
        | Expected::Counted { key: index, .. }
        | Expected::Drawn { key: index, .. }
        | Expected::Held { key: index, .. }) = expected;
        let key = &mut self.keys[index];
        if !matches!(expected, Expected::Held { .. }) {
            key.acknowledged += 1;
            self.tally.writes_acknowledged += 1;
        }
        let found = match (&expected, reply) {
            (Expected::Stored { .. }, Reply::Simple(b"OK")) => return,
            (Expected::Counted { .. } | Expected::Drawn { .. }, Reply::Integer(count)) => {
                u64::try_from(count).ok()
            }
            (Expected::Held { .. }, Reply::Bulk(held)) => key.write_that_left(seed, held),
            _ => None,
        };
        let (first, last) = match &expected {
            Expected::Stored { .. } => (0, 0),
            Expected::Counted { count, .. } => (*count, *count),
            Expected::Drawn { above, .. } => (above + 1, key.sent),
            Expected::Held { writes, .. } => (*writes.start(), *writes.end()),
        };
        let is_drawn = matches!(expected, Expected::Drawn { .. });
        let (kind, lost, text) = match found {
            None => (FaultKind::Wrong, 0, format!("was answered {}", show(reply))),
            Some(n) if n < first => {
                (FaultKind::Lost, first - n, format!("shows write {n}, but {first} must be there"))
            }
            Some(n) if n > last => {
                (FaultKind::Wrong, 0, format!("shows write {n}, but only {last} were sent"))
            }
            Some(n) if is_drawn && !key.draw(n) => (FaultKind::Lost, 1, format!("gave out {n} twice")),
            Some(_) => return,
        };
        let text = format!("{} {} {text}", expected.name(), key.name);
        if lost > 0 {
            let most = self.lost.entry(index).or_default();
            *most = lost.max(*most);
        }
        self.fault(connection, kind, text);
    }

    fn fault(&mut self, connection: usize, kind: FaultKind, text: String) {
        self.tally.faults += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(Fault { connection, kind, text });
        }
    }

    /// The connection is gone. Whether what was under way on it has been done is not known; what was acknowledged on it
    /// is read back on the others.
    pub fn abandon(&mut self, connection: usize) {
        let connection = &mut self.connections[connection];
        connection.alive = false;
        connection.expected.clear();
        connection.input.clear();
    }

    /// Ends the load: no more writes are sent, and when all have been answered everything is read back.
    pub fn read_back(&mut self) {
        self.cursor.get_or_insert(0);
    }

    /// Whether everything has been read back, or no connection is left to do it on.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let idle = |connection: &Connection| connection.expected.is_empty();
        let read = self.cursor.is_some_and(|cursor| cursor >= self.keys.len());
        self.connections.iter().all(|connection| !connection.alive)
            || read && self.connections.iter().all(idle)
    }

    /// What has been seen so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { acknowledged_lost: self.lost.values().sum(), ..self.tally }
    }

    /// The replies received on each connection; `None` if it is gone.
    #[must_use]
    pub fn replies_by_connection(&self) -> Vec<Option<u64>> {
        self.connections.iter().map(|connection| connection.alive.then_some(connection.replies)).collect()
    }

    /// The first faults.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl Expected {
    fn name(&self) -> &'static str {
        match self {
            Expected::Stored { .. } => "SET",
            Expected::Counted { .. } | Expected::Drawn { .. } => "INCR",
            Expected::Held { .. } => "GET",
        }
    }
}

impl Key {
    fn new(name: String, kind: KeyKind) -> Key {
        Key { name, kind, sent: 0, acknowledged: 0, drawn: Vec::new(), highest: 0 }
    }

    /// The number of the write that left this; `None` if none did.
    fn write_that_left(&self, seed: u64, held: Option<&[u8]>) -> Option<u64> {
        let Some(held) = held else { return Some(0) };
        let held = std::str::from_utf8(held).ok()?;
        match self.kind {
            KeyKind::Register => {
                let version =
                    held.strip_prefix(&self.name)?.strip_prefix('=')?.split_once(' ')?.0.parse().ok()?;
                (value(seed, &self.name, version) == held).then_some(version)
            }
            KeyKind::Counter | KeyKind::Shared => held.parse().ok(),
        }
    }

    /// Notes that a shared counter gave out this number, which is none that was not asked for; `false` if it had before.
    fn draw(&mut self, number: u64) -> bool {
        let Ok(index) = usize::try_from(number) else {
            return false;
        };
        if self.drawn.len() <= index {
            self.drawn.resize(index + 1, false);
        }
        self.highest = self.highest.max(number);
        !std::mem::replace(&mut self.drawn[index], true)
    }
}

/// The value of a version of a register: no other version of any register has it. Its length and its end are random, as
/// values are.
fn value(seed: u64, name: &str, version: u64) -> String {
    let name_hash = name.bytes().fold(0, |hash, byte| mix(hash, u64::from(byte), 0));
    let mut random = Rng::with_seed(mix(seed, name_hash, version));
    let filler = (0..random.usize(8..80)).map(|_| random.alphanumeric());
    format!("{name}={version} ").chars().chain(filler).collect()
}

/// One seed from several numbers (the finaliser of SplitMix64).
fn mix(a: u64, b: u64, c: u64) -> u64 {
    let mut z = a.wrapping_mul(31).wrapping_add(b).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(c);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn show(reply: Reply<'_>) -> String {
    match reply {
        Reply::Simple(text) => format!("\"+{}\"", text.escape_ascii()),
        Reply::Error(text) => format!("\"-{}\"", text.escape_ascii()),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(None) => "with nothing".to_owned(),
        Reply::Bulk(Some(text)) => format!("\"{}\"", text[..text.len().min(60)].escape_ascii()),
    }
}

#[cfg(test)]
mod tests;
