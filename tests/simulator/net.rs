//! Simulated connections: byte streams that are slow, stall, break off in the middle of a message, or end with their host.
//!
//! What a node writes is framed by the real link; here it is only bytes. As on TCP, bytes come in order or not at all, so what
//! a network does to packets shows as delay, as a stall, or as a connection that ends behind a prefix.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use echovisor_log::link::{Link, LinkError, Message, Receiver, Sender};
use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::time::{MILLISECOND, Time};

/// Bytes that a connection takes before its writer must wait.
const WINDOW: usize = 64 << 10;

/// All connections, and what hinders them.
pub(crate) struct Net {
    connections: BTreeMap<u64, Connection>,
    next: u64,
    rng: Rng,
    /// Longest ordinary delay.
    delay: Time,
    /// Until when nothing passes from one slot to another.
    blocked: BTreeMap<(usize, usize), Time>,
}

struct Connection {
    directions: [Direction; 2],
    /// A host is gone: nothing passes any more, and nobody is told.
    lost: bool,
}

struct Direction {
    from: usize,
    to: usize,
    outgoing: Arc<Mutex<Outgoing>>,
    incoming: Arc<Mutex<Incoming>>,
    /// What is on its way, and when it arrives; an empty piece is the end.
    transit: VecDeque<(Time, Vec<u8>)>,
    last: Time,
    finished: bool,
}

#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    room: usize,
    stalled: bool,
    broken: bool,
}

#[derive(Default)]
struct Incoming {
    bytes: VecDeque<u8>,
    ended: bool,
}

impl Net {
    pub(crate) fn new(rng: Rng, delay: Time) -> Net {
        Net { connections: BTreeMap::new(), next: 0, rng, delay, blocked: BTreeMap::new() }
    }

    /// Connects two slots, and gives each its end.
    pub(crate) fn connect(&mut self, from: usize, to: usize) -> (Link, Link) {
        let there = Direction::new(from, to);
        let back = Direction::new(to, from);
        let near = Link::new(Reading(back.incoming.clone()), Writing(there.outgoing.clone()));
        let far = Link::new(Reading(there.incoming.clone()), Writing(back.outgoing.clone()));
        self.connections.insert(self.next, Connection { directions: [there, back], lost: false });
        self.next += 1;
        (near, far)
    }

    /// Until when nothing passes between two slots, if that is so.
    pub(crate) fn blocked_until(&self, from: usize, to: usize, now: Time) -> Option<Time> {
        self.blocked.get(&(from, to)).copied().filter(|until| *until > now)
    }

    /// Lets nothing pass from one slot to another.
    pub(crate) fn block(&mut self, from: usize, to: usize, until: Time) {
        self.blocked.insert((from, to), until);
    }

    /// Lets everything pass, quickly.
    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
        self.delay = self.delay.min(5 * MILLISECOND);
    }

    /// How long a packet takes now.
    pub(crate) fn delay(&mut self) -> Time {
        let long = if self.rng.u8(..50) == 0 { 20 } else { 1 };
        self.rng.u64(20_000..=self.delay.max(30_000)) * long
    }

    /// Breaks a connection between two slots: each side gets a part of what was on its way, and then the end.
    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        let Net { connections, rng, .. } = self;
        let between = |c: &&mut Connection| {
            let Direction { from, to, .. } = c.directions[0];
            (from, to) == (one, other) || (from, to) == (other, one)
        };
        for connection in connections.values_mut().filter(between) {
            for direction in &mut connection.directions {
                direction.cut(rng);
            }
        }
    }

    /// A host loses its power: nothing of what it said arrives any more, and nobody is told.
    pub(crate) fn lose(&mut self, slot: usize) {
        for connection in self.connections.values_mut() {
            if connection.directions[0].from == slot || connection.directions[0].to == slot {
                connection.lost = true;
            }
        }
    }

    /// A host is there again: it resets the connections that it does not know.
    pub(crate) fn reset(&mut self, slot: usize) {
        for connection in self.connections.values_mut().filter(|connection| connection.lost) {
            if connection.directions[0].from == slot || connection.directions[0].to == slot {
                connection.lost = false;
                for direction in &mut connection.directions {
                    direction.cut(&mut self.rng);
                }
            }
        }
    }

    /// Moves bytes. Tells which slots have something to see, and when.
    pub(crate) fn pump(&mut self, now: Time, wake: &mut Vec<(usize, Time)>) {
        let delay = self.delay;
        let Net { connections, rng, blocked, .. } = self;
        connections.retain(|_, connection| {
            if connection.lost {
                return true;
            }
            let closed = connection.closed();
            for (direction, closed) in connection.directions.iter_mut().zip(closed) {
                let stalled_until = blocked.get(&(direction.from, direction.to)).copied();
                direction.pump(now, closed, stalled_until, delay, rng, wake);
            }
            let [there, back] = &connection.directions;
            !(there.is_done() && back.is_done())
        });
    }
}

impl Connection {
    /// Whether the writer of each direction has closed the connection: it holds neither of its halves.
    fn closed(&self) -> [bool; 2] {
        let [there, back] = &self.directions;
        let dropped = |out: &Direction, back: &Direction| {
            Arc::strong_count(&out.outgoing) == 1 && Arc::strong_count(&back.incoming) == 1
        };
        [dropped(there, back), dropped(back, there)]
    }
}

impl Direction {
    fn new(from: usize, to: usize) -> Direction {
        Direction {
            from,
            to,
            outgoing: Arc::new(Mutex::new(Outgoing { room: WINDOW, ..Outgoing::default() })),
            incoming: Arc::default(),
            transit: VecDeque::new(),
            last: 0,
            finished: false,
        }
    }

    fn is_done(&self) -> bool {
        self.finished && self.transit.is_empty()
    }

    fn pump(
        &mut self,
        now: Time,
        closed: bool,
        stalled_until: Option<Time>,
        delay: Time,
        rng: &mut Rng,
        wake: &mut Vec<(usize, Time)>,
    ) {
        let mut outgoing = self.outgoing.lock().expect("one thread");
        let bytes = std::mem::take(&mut outgoing.bytes);
        if !bytes.is_empty() && !self.finished {
            // A write may arrive in pieces.
            let middle = rng.usize(..=bytes.len());
            let pieces =
                if rng.u8(..4) == 0 { [&bytes[..middle], &bytes[middle..]] } else { [&bytes[..], &[][..]] };
            for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                self.last = self.last.max(now + rng.u64(20_000..=delay.max(30_000)));
                self.transit.push_back((self.last, piece.to_vec()));
                wake.push((self.to, self.last));
            }
        }
        if closed && !self.finished {
            self.finished = true;
            self.last = self.last.max(now + delay);
            self.transit.push_back((self.last, Vec::new()));
            wake.push((self.to, self.last));
        }
        if let Some(until) = stalled_until.filter(|until| *until > now) {
            if !self.transit.is_empty() {
                wake.push((self.to, until));
            }
            return;
        }
        let mut incoming = self.incoming.lock().expect("one thread");
        while self.transit.front().is_some_and(|(arrival, _)| *arrival <= now) {
            let (_, piece) = self.transit.pop_front().expect("a piece");
            incoming.ended |= piece.is_empty();
            incoming.bytes.extend(piece);
            wake.push((self.to, now));
        }
        let taken = self.transit.iter().map(|(_, piece)| piece.len()).sum::<usize>() + incoming.bytes.len();
        outgoing.room = WINDOW.saturating_sub(taken);
        if outgoing.stalled && outgoing.room > 0 {
            outgoing.stalled = false;
            wake.push((self.from, now));
        }
    }

    fn cut(&mut self, rng: &mut Rng) {
        let keep = rng.usize(..=self.transit.len());
        self.transit.truncate(keep);
        if let Some((_, piece)) = self.transit.back_mut()
            && piece.len() > 1
        {
            piece.truncate(rng.usize(1..piece.len()));
        }
        self.finished = true;
        self.transit.push_back((self.last, Vec::new()));
        self.outgoing.lock().expect("one thread").broken = true;
    }
}

struct Reading(Arc<Mutex<Incoming>>);

impl AsyncRead for Reading {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut incoming = self.0.lock().expect("one thread");
        let length = incoming.bytes.len().min(buf.remaining());
        if length == 0 && !incoming.ended {
            return Poll::Pending;
        }
        for byte in incoming.bytes.drain(..length) {
            buf.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

struct Writing(Arc<Mutex<Outgoing>>);

impl AsyncWrite for Writing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut outgoing = self.0.lock().expect("one thread");
        if outgoing.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = buf.len().min(outgoing.room);
        if length == 0 {
            outgoing.stalled = true;
            return Poll::Pending;
        }
        outgoing.room -= length;
        outgoing.bytes.extend_from_slice(&buf[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The next message, if a whole one is there.
pub(crate) fn receive(receiver: &mut Receiver) -> Option<Result<Message<'_>, LinkError>> {
    match pin!(receiver.receive()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(message) => Some(message),
        Poll::Pending => None,
    }
}

/// Writes what is queued, as far as the connection takes it. Whether anything was there to be written.
pub(crate) fn flush(sender: Option<&mut Sender>) -> Option<Result<(), LinkError>> {
    let sender = sender.filter(|sender| sender.queued() > 0)?;
    match pin!(sender.flush()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(flushed) => Some(flushed),
        Poll::Pending => None,
    }
}
