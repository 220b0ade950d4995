//! A disk with a volatile cache, for an emulated machine: what was written and not flushed is lost with the power, as far as
//! chance will have it.

use std::{
    io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write},
    mem,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use fastrand::Rng;
use nbd::{Export, server};

/// What the library calls whatever it serves.
pub(crate) const EXPORT: &str = "rustnbd";

/// What a disk writes whole or not at all, bytes.
const SECTOR: usize = 512;

/// A disk that an emulated machine reaches as a network block device.
pub(crate) struct Disk {
    socket: PathBuf,
    medium: Arc<(Mutex<Medium>, Condvar)>,
}

struct Medium {
    /// What the machine reads.
    seen: Vec<u8>,
    /// What would be there after a loss of everything else.
    flushed: Vec<u8>,
    /// The rest, in the order in which it was written, each with its offset.
    cache: Vec<(usize, Vec<u8>)>,
    /// The power fails before one more write than that, if at all.
    writes_left: Option<u64>,
    /// The power has failed: nothing is answered any more.
    dead: bool,
}

/// What a loss of power has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cut {
    /// Bytes that were written and not flushed.
    pub(crate) unflushed: u64,
    /// Those of them that are on the disk nevertheless.
    pub(crate) survived: u64,
}

impl Disk {
    /// An empty disk of so many bytes, which a machine finds at a socket.
    pub(crate) fn new(socket: PathBuf, size: usize) -> Disk {
        let (seen, flushed) = (vec![0; size], vec![0; size]);
        let medium = Medium { seen, flushed, cache: Vec::new(), writes_left: None, dead: false };
        let medium = Arc::new((Mutex::new(medium), Condvar::new()));
        let listener = UnixListener::bind(&socket).expect("a socket");
        thread::spawn({
            let medium = Arc::clone(&medium);
            // One machine at a time; it goes without a word, so how a connection ends tells nothing.
            move || listener.incoming().flatten().for_each(|machine| drop(serve(&machine, &medium)))
        });
        Disk { socket, medium }
    }

    /// Where a machine finds it.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The power will fail once there have been so many more writes.
    pub(crate) fn fail_after(&self, writes: u64) {
        self.medium().writes_left = Some(writes);
    }

    /// Whether it has failed by itself.
    pub(crate) fn is_dead(&self) -> bool {
        self.medium().dead
    }

    /// Whether these bytes are in the cache, and would be lost now.
    pub(crate) fn holds_unflushed(&self, bytes: &[u8]) -> bool {
        let medium = self.medium();
        medium.cache.iter().any(|(_, data)| data.windows(bytes.len()).any(|window| window == bytes))
    }

    /// The machine is off, and its disk has lost what was not flushed. Each sector that was written survives with a
    /// probability of its own.
    pub(crate) fn cut(&self, survival: f64, random: &mut Rng) -> Cut {
        let mut medium = self.medium();
        let Medium { seen, flushed, cache, writes_left, dead } = &mut *medium;
        let mut cut = Cut::default();
        let lost = mem::take(cache);
        for (at, bytes) in &lost {
            for (n, sector) in bytes.chunks_exact(SECTOR).enumerate() {
                cut.unflushed += SECTOR as u64;
                if random.f64() < survival {
                    cut.survived += SECTOR as u64;
                    put(flushed, at + n * SECTOR, sector);
                }
            }
        }
        for (at, bytes) in &lost {
            put(seen, *at, &flushed[*at..at + bytes.len()]);
        }
        (*writes_left, *dead) = (None, false);
        self.medium.1.notify_all();
        cut
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        lock(&self.medium.0)
    }
}

fn lock(medium: &Mutex<Medium>) -> MutexGuard<'_, Medium> {
    medium.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Serves a machine until its connection ends.
fn serve(machine: &UnixStream, medium: &(Mutex<Medium>, Condvar)) -> Result<()> {
    let size = lock(&medium.0).seen.len() as u64;
    server::handshake(machine, |_| Ok(Export { size, send_flush: true, ..Export::<()>::default() }))?;
    server::transmission(machine, View { medium, at: 0 })
}

/// The disk as the machine sees it.
struct View<'a> {
    medium: &'a (Mutex<Medium>, Condvar),
    at: usize,
}

impl View<'_> {
    /// The medium as long as there is power; without it nothing is answered, until the machine is off, too.
    fn powered(&self) -> Result<MutexGuard<'_, Medium>> {
        let mut medium = lock(&self.medium.0);
        if !medium.dead {
            return Ok(medium);
        }
        while medium.dead {
            medium = self.medium.1.wait(medium).unwrap_or_else(PoisonError::into_inner);
        }
        Err(ErrorKind::BrokenPipe.into())
    }
}

impl Read for View<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = {
            let medium = self.powered()?;
            let rest = &medium.seen[self.at..];
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            read
        };
        self.at += read;
        Ok(read)
    }
}

impl Write for View<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        {
            let mut medium = self.powered()?;
            if self.at + bytes.len() > medium.seen.len() {
                return Err(ErrorKind::StorageFull.into());
            }
            if medium.writes_left == Some(0) {
                medium.dead = true;
                drop(medium);
                return self.powered().and(Err(ErrorKind::BrokenPipe.into()));
            }
            medium.writes_left = medium.writes_left.map(|left| left - 1);
            put(&mut medium.seen, self.at, bytes);
            // One write may come in pieces that end within a sector.
            match medium.cache.last_mut() {
                Some((at, last)) if *at + last.len() == self.at => last.extend_from_slice(bytes),
                _ => medium.cache.push((self.at, bytes.to_vec())),
            }
        }
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        let mut medium = self.powered()?;
        let Medium { flushed, cache, .. } = &mut *medium;
        cache.drain(..).for_each(|(at, bytes)| put(flushed, at, &bytes));
        Ok(())
    }
}

impl Seek for View<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let SeekFrom::Start(at) = to else { return Err(ErrorKind::Unsupported.into()) };
        self.at = usize::try_from(at).map_err(Error::other)?;
        Ok(at)
    }
}
