//! A link that is longer than this host is wide: what one node sends comes to the other later.
//!
//! It stands between the secondary and its end of the cable, and holds what passes for a while, in both directions. So the
//! cable's counters still count what the nodes send, once.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{failure::Failure, lab::Namespace};

/// Bytes that are read at once, and how many such pieces may be under way in each direction.
const PIECE: usize = 16 << 10;
const PIECES: usize = 1024;

/// A relay that works until it is dropped.
pub(super) struct Relay {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
    /// Where it listens, in its namespace.
    pub(super) address: SocketAddr,
}

/// What was read, and when it is due at the other end.
type Piece = (Instant, Vec<u8>);

impl Relay {
    /// Takes connections in `namespace`, and passes what comes on them to `target`, each way later by `delay`.
    pub(super) fn start(namespace: &Namespace, target: String, delay: Duration) -> Result<Relay, Failure> {
        let failed = |error: io::Error| {
            let hint =
                "see whether the limit of open files (`ulimit -n`) or of processes (`ulimit -u`) is reached";
            Failure::new("cannot make the link longer", hint).because(error)
        };
        let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let taken = listener.try_clone().map_err(failed)?;
        let home = namespace.try_clone()?;
        let accept = move || {
            // It ends when the listener is shut down.
            while let Ok((near, _)) = taken.accept() {
                let Ok(Ok(far)) = home.enter(|| TcpStream::connect(&target)) else {
                    continue;
                };
                // A connection that cannot be passed on is closed, and its node dials again.
                let _ = join(&near, &far, delay).and_then(|()| join(&far, &near, delay));
            }
        };
        let thread = thread::Builder::new().name("relay".into()).spawn(accept).map_err(failed)?;
        Ok(Relay { listener, thread: Some(thread), address })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Passes on what comes from one end to the other, until either closes.
fn join(from: &TcpStream, to: &TcpStream, delay: Duration) -> io::Result<()> {
    to.set_nodelay(true)?;
    let (from, to) = (from.try_clone()?, to.try_clone()?);
    let (sender, pieces) = sync_channel(PIECES);
    thread::Builder::new().name("relay in".into()).spawn(move || take(from, &sender, delay))?;
    thread::Builder::new().name("relay out".into()).spawn(move || give(to, &pieces))?;
    Ok(())
}

fn take(mut from: TcpStream, pieces: &SyncSender<Piece>, delay: Duration) {
    let mut buffer = [0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let due = Instant::now() + delay;
        if pieces.send((due, buffer[..length].to_vec())).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
}

fn give(mut to: TcpStream, pieces: &Receiver<Piece>) {
    for (due, piece) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a connection through a relay.
    fn connection(delay: Duration) -> (TcpStream, TcpStream) {
        let ((near, middle), (other, far)) = (pair(), pair());
        join(&middle, &other, delay).and_then(|()| join(&other, &middle, delay)).expect("threads");
        (near, far)
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        (near, listener.accept().expect("a connection").0)
    }

    #[test]
    fn bytes_come_in_order_and_not_before_their_time() {
        let delay = Duration::from_millis(3);
        let (mut near, mut far) = connection(delay);
        let begun = Instant::now();
        let sent: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        thread::scope(|scope| {
            scope.spawn(|| near.write_all(&sent).expect("it is taken"));
            let mut received = vec![0; sent.len()];
            far.read_exact(&mut received[..1]).expect("it comes");
            assert!(begun.elapsed() >= delay);
            far.read_exact(&mut received[1..]).expect("it comes");
            assert!(received == sent, "other bytes");
        });
        far.write_all(b"back").expect("it is taken");
        let mut back = [0; 4];
        near.read_exact(&mut back).expect("it comes");
        assert_eq!(&back, b"back");
    }

    #[test]
    fn the_end_of_one_side_is_that_of_the_other() {
        let (near, mut far) = connection(Duration::ZERO);
        drop(near);
        assert_eq!(far.read(&mut [0; 1]).expect("an end"), 0);
    }
}
