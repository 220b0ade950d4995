//! Frames over a stream socket, each behind its length in 4 bytes, big-endian.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::PortError;
use echovisor_event::limits::FRAME_MAX;

/// A connected frame socket.
pub struct Stream {
    socket: UnixStream,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing>,
}

/// What has been read and is not taken yet.
struct Incoming {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

const PREFIX: usize = 4;

impl Stream {
    pub(super) fn connect(path: &Path) -> Result<Stream, PortError> {
        let failed = |source| PortError::Unix { path: path.to_owned(), source };
        let socket = UnixStream::connect(path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Stream::new(socket))
    }

    fn new(socket: UnixStream) -> Stream {
        let incoming = Incoming { buffer: vec![0; 64 << 10].into(), start: 0, end: 0 };
        Stream { socket, incoming: Mutex::new(incoming), outgoing: Mutex::default() }
    }

    pub(super) fn receive(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(length) = incoming.take(frame)? {
                return Ok(Some(length));
            }
            match (&self.socket).read(incoming.room()) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the frame socket was closed"));
                }
                Ok(length) => incoming.end += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// A frame is sent whole or not at all: if not even its first byte is taken at once it is lost. If its beginning is taken
    /// the rest goes first the next time, and until then whole frames are lost: nobody waits here.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        outgoing.write(&self.socket)?;
        if !outgoing.is_empty() {
            return Ok(());
        }
        outgoing.put(frame);
        outgoing.write(&self.socket)?;
        outgoing.forget_unbegun();
        Ok(())
    }
}

/// A frame on its way.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    fn put(&mut self, frame: &[u8]) {
        self.bytes.clear();
        self.written = 0;
        self.bytes.extend((frame.len() as u32).to_be_bytes());
        self.bytes.extend(frame);
    }

    /// Writes as much as the socket takes.
    fn write(&mut self, mut socket: &UnixStream) -> io::Result<()> {
        while !self.is_empty() {
            match socket.write(&self.bytes[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A frame of which nothing was taken can be lost.
    fn forget_unbegun(&mut self) {
        if self.written == 0 {
            self.bytes.clear();
        }
    }
}

impl Incoming {
    /// Copies the next frame out, if all of it is here.
    fn take(&mut self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        let here = &self.buffer[self.start..self.end];
        let Some((prefix, rest)) = here.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > FRAME_MAX.min(frame.len()) {
            let what =
                format!("a frame of {length} bytes on the frame socket; at most {FRAME_MAX} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        frame[..length].copy_from_slice(bytes);
        self.start += PREFIX + length;
        Ok(Some(length))
    }

    /// Where to read to; never empty, since a frame is smaller than the buffer.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::new(ours), theirs)
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let (stream, mut peer) = pair();
        let mut bytes = Vec::new();
        for length in [0_usize, 1, 60, 1514, FRAME_MAX] {
            bytes.extend((length as u32).to_be_bytes());
            bytes.extend(std::iter::repeat_n(length as u8, length));
        }
        let mut frame = [0; FRAME_MAX];
        let mut lengths = Vec::new();
        for part in bytes.chunks(7) {
            peer.write_all(part).unwrap();
            while let Some(length) = stream.receive(&mut frame).unwrap() {
                assert!(frame[..length].iter().all(|byte| *byte == length as u8));
                lengths.push(length);
            }
        }
        assert_eq!(lengths, [0, 1, 60, 1514, FRAME_MAX]);
    }

    #[test]
    fn a_length_beyond_the_limit_is_an_error() {
        let (stream, mut peer) = pair();
        peer.write_all(&(FRAME_MAX as u32 + 1).to_be_bytes()).unwrap();
        let error = stream.receive(&mut [0; FRAME_MAX]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_full_socket_loses_whole_frames_and_nobody_waits() {
        let (stream, mut peer) = pair();
        peer.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        for round in 0..3 {
            for _ in 0..1000 {
                stream.send(&[round; 1000]).unwrap();
            }
            // WouldBlock: everything that was taken has been read.
            let _ = peer.read_to_end(&mut bytes);
        }
        let whole = bytes.len() / 1004 * 1004;
        assert!(whole < 3000 * 1004, "the socket was never full");
        for frame in bytes[..whole].chunks(1004) {
            assert_eq!(frame[..4], 1000_u32.to_be_bytes());
            assert!(frame[4..].iter().all(|byte| *byte == frame[4]), "a frame of pieces of two");
        }
    }
}
