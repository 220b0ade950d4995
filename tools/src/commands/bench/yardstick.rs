//! What lockstep has to wait for: the round trip of the link, and threads that are woken.

use std::{
    io::{self, ErrorKind, Read, Write, pipe},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{placement::Placement, relay::Relay};
use crate::{
    failure::Failure,
    lab::{Network, Site},
};

/// Bytes of a flush that tells of one request, and of its acknowledgement, about.
const FLUSH: usize = 128;
const ACKNOWLEDGEMENT: usize = 64;

/// How often each is measured, unless that takes longer than this.
const TIMES: usize = 400;
const ENOUGH: Duration = Duration::from_secs(1);

/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both, as medians.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Yardstick {
    /// Of a small message and its answer.
    pub(super) round_trip: Duration,
    /// From the moment at which one thread has something for another one until that one has it.
    pub(super) wake_up: Duration,
}

impl Yardstick {
    /// Measures both on this network, whose link is longer by `delay`.
    pub(super) fn measure(
        network: &Network,
        placement: &Placement,
        delay: Duration,
    ) -> Result<Yardstick, Failure> {
        let failed = |what| {
            move |error: io::Error| {
                let hint = "see whether something else on this host takes all its time";
                Failure::new(format!("the {what} cannot be measured"), hint).because(error)
            }
        };
        let Network { primary, secondary, .. } = network;
        let (relay, near, far) = connection(primary, secondary, delay)?;
        let round_trip = round_trip(&near, &far, relay.is_none(), placement);
        drop((near, far, relay));
        Ok(Yardstick {
            round_trip: round_trip.map_err(failed("round trip of the link"))?,
            wake_up: wake_up(placement).map_err(failed("time until a thread is woken"))?,
        })
    }
}

/// A connection over the link: through a relay of its own, if there is a delay; the end at the primary; and the one at the secondary.
fn connection(
    primary: &Site,
    secondary: &Site,
    delay: Duration,
) -> Result<(Option<Relay>, TcpStream, TcpStream), Failure> {
    let failed = |error: io::Error| {
        let hint = "see whether the limit of open files (`ulimit -n`) is reached";
        Failure::new("the link takes no further connection", hint).because(error)
    };
    let listener = primary.namespace.enter(|| TcpListener::bind((primary.address, 0)))?.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let relay = (!delay.is_zero())
        .then(|| Relay::start(&secondary.namespace, address.to_string(), delay))
        .transpose()?;
    let target = relay.as_ref().map_or(address, |relay| relay.address);
    let far = secondary.namespace.enter(|| TcpStream::connect_timeout(&target, PATIENCE))?.map_err(failed)?;
    let accept = || {
        wait(&listener)?;
        let (near, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        Ok(near)
    };
    let near = accept().map_err(failed)?;
    Ok((relay, near, far))
}

/// Waits until somebody has come.
fn wait(listener: &TcpListener) -> io::Result<()> {
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience)) {
        Ok(0) => Err(ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// From one end to the other and back. Who polls need not be woken, and so measures nothing but the way. Where a relay is on it, its threads
/// need the processors.
fn round_trip(near: &TcpStream, far: &TcpStream, polls: bool, placement: &Placement) -> io::Result<Duration> {
    for end in [near, far] {
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_nonblocking(polls)?;
    }
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            placement.pin_thread(false)?;
            let mut flush = [0; FLUSH];
            // It ends with the connection.
            while read(far, &mut flush).is_ok() {
                write(far, &[0; ACKNOWLEDGEMENT])?;
            }
            Ok(())
        });
        let ask = scope.spawn(|| {
            let mut acknowledgement = [0; ACKNOWLEDGEMENT];
            let measured = placement.pin_thread(true).and_then(|()| {
                median(|| {
                    write(near, &[0; FLUSH])?;
                    read(near, &mut acknowledgement)
                })
            });
            // The other end has nothing more to wait for.
            let _ = near.shutdown(Shutdown::Both);
            measured
        });
        let join = |_| io::Error::other("a thread of the measurement failed");
        let measured = ask.join().map_err(join)??;
        echo.join().map_err(join)?.map(|()| measured)
    })
}

/// From one thread to another and back, which wakes two. Each has a processor of its own, where the primary has two: whoever wakes another
/// thread of a node has something else to do itself.
fn wake_up(placement: &Placement) -> io::Result<Duration> {
    let ((mut there, mut ask), (mut back, mut answer)) = (pipe()?, pipe()?);
    thread::scope(|scope| {
        scope.spawn(move || {
            placement.pin_thread_to_one(true)?;
            let mut byte = [0];
            // It ends when nobody asks any more.
            while there.read_exact(&mut byte).is_ok() {
                answer.write_all(&byte)?;
            }
            io::Result::Ok(())
        });
        let asking = scope.spawn(move || {
            placement.pin_thread_to_one(false)?;
            let mut byte = [0];
            median(|| {
                ask.write_all(&byte)?;
                back.read_exact(&mut byte)
            })
        });
        asking.join().map_err(|_| io::Error::other("a thread of the measurement failed"))?
    })
    .map(|both| both / 2)
}

/// How long something takes.
fn median(mut act: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < TIMES && (times.is_empty() || begun.elapsed() < ENOUGH) {
        let before = Instant::now();
        act()?;
        times.push(before.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// Reads so many bytes, and asks again and again where that does not wait by itself.
fn read(mut stream: &TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let (begun, mut filled) = (Instant::now(), 0);
    while filled < bytes.len() {
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => filled += length,
            // On a single processor the other end would not get on else.
            Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {
                thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes bytes for which there is room.
fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ANYWHERE: Placement = Placement::Shared { processors: 1 };

    #[test]
    fn a_round_trip_is_measured_by_who_polls_and_by_who_waits() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        for polls in [true, false] {
            let far = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
            let (near, _) = listener.accept().expect("a connection");
            near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).expect("options of TCP");
            let time = round_trip(&near, &far, polls, &ANYWHERE).expect("an answer");
            assert!(time > Duration::ZERO);
        }
    }

    #[test]
    fn a_thread_is_woken() {
        let time = wake_up(&ANYWHERE).expect("an answer");
        assert!(time > Duration::ZERO);
    }
}
