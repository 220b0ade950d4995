//! A load on the guest over real TCP, with every reply checked.

use std::{
    fmt,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use echovisor_tools::model::{self, Model, Tally};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{LIMIT, Lab, wait_for};

/// How often a silent load looks whether it shall end.
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A load that goes on until it is told to finish.
///
/// One thread serves all connections. A connection that is gone stays gone, since what a reset does to a client is the
/// point of the test; what was acknowledged on it is still read back on the others.
#[derive(Debug)]
pub struct Load {
    thread: JoinHandle<Verdict>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    replies: AtomicU64,
    /// The longest silence since somebody asked, nanoseconds.
    silence: AtomicU64,
    finish: AtomicBool,
}

/// What a load has seen.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Requests, replies, writes.
    pub tally: Tally,
    /// The first replies that should not have been, in words.
    pub faults: Vec<String>,
    /// Connections that ended without being asked to.
    pub resets: u64,
    /// The longest time without a reply on any connection.
    pub longest_silence: Duration,
    /// Whether everything could be read back in the end.
    pub complete: bool,
}

impl Load {
    /// Opens all connections from the lab's client to the guest's port 6379, and begins. Two loads on one guest must
    /// differ in `seed`.
    ///
    /// # Panics
    /// If the guest accepts no connection.
    #[must_use]
    pub fn start(lab: &Lab, seed: u64) -> Load {
        let load = model::Load { seed, connections: 8, depth: 8, keys: 64 };
        let streams = (0..load.connections).map(|_| Some(lab.connect(6379))).collect();
        let shared = Arc::new(Shared::default());
        let runner = Runner { model: Model::new(load), streams, resets: 0 };
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || runner.run(&shared)
        });
        Load { thread, shared }
    }

    /// How many replies have come.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.shared.replies.load(Ordering::Relaxed)
    }

    /// The longest time without a reply on any connection that has ended since this was asked last.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        Duration::from_nanos(self.shared.silence.swap(0, Ordering::Relaxed))
    }

    /// Waits for so many more replies.
    ///
    /// # Panics
    /// If they do not come.
    pub fn wait_for_replies(&self, more: u64) {
        let goal = self.replies() + more;
        wait_for(&format!("{more} more replies"), || {
            let seen = self.replies();
            if seen >= goal {
                Ok(())
            } else if self.thread.is_finished() {
                Err(format!("the load ended after {seen}"))
            } else {
                Err(format!("{seen} of {goal}"))
            }
        });
    }

    /// Ends the load, and reads back everything that was acknowledged.
    ///
    /// # Panics
    /// If the load itself is broken.
    #[must_use]
    pub fn finish(self) -> Verdict {
        self.shared.finish.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load does not panic")
    }
}

struct Runner {
    model: Model,
    /// `None` once a connection is gone.
    streams: Vec<Option<TcpStream>>,
    resets: u64,
}

impl Runner {
    fn run(mut self, shared: &Shared) -> Verdict {
        let mut last_reply = Instant::now();
        let mut longest_silence = Duration::ZERO;
        while !self.model.is_done() && last_reply.elapsed() < LIMIT {
            if shared.finish.load(Ordering::Relaxed) {
                self.model.read_back();
            }
            self.send();
            if self.receive() {
                let silence = last_reply.elapsed();
                longest_silence = longest_silence.max(silence);
                let nanos = u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX);
                shared.silence.fetch_max(nanos, Ordering::Relaxed);
                last_reply = Instant::now();
                shared.replies.store(self.model.tally().replies, Ordering::Relaxed);
            }
        }
        Verdict {
            tally: self.model.tally(),
            faults: self.model.faults().iter().map(ToString::to_string).collect(),
            resets: self.resets,
            longest_silence,
            complete: self.model.is_done(),
        }
    }

    fn send(&mut self) {
        for connection in 0..self.streams.len() {
            let mut requests = Vec::new();
            self.model.requests(connection, &mut requests);
            if let Some(stream) = &mut self.streams[connection]
                // A few requests at most: the socket's buffer has room even if the guest is silent for long.
                && stream.write_all(&requests).is_err()
            {
                self.lose(connection);
            }
        }
    }

    /// Takes what has come; whether anything has.
    fn receive(&mut self) -> bool {
        let living = |(n, stream): (usize, &Option<TcpStream>)| stream.as_ref().map(|_| n);
        let connections: Vec<usize> = self.streams.iter().enumerate().filter_map(living).collect();
        let mut polled: Vec<PollFd> =
            self.streams.iter().flatten().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&GLANCE)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        let before = self.model.tally().replies;
        let mut buffer = [0; 16 << 10];
        for (connection, _) in connections.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            let Some(stream) = &mut self.streams[connection] else {
                continue;
            };
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => self.lose(connection),
                Ok(length) => self.model.replies(connection, &buffer[..length]),
            }
        }
        self.model.tally().replies > before
    }

    fn lose(&mut self, connection: usize) {
        self.streams[connection] = None;
        self.resets += 1;
        self.model.abandon(connection);
    }
}

impl Verdict {
    /// Checks that the clients have noticed nothing but a pause.
    ///
    /// # Panics
    /// If they have.
    pub fn must_be_clean(&self) {
        let Tally { acknowledged_lost, faults, .. } = self.tally;
        let clean = self.complete && (acknowledged_lost, faults, self.resets) == (0, 0, 0);
        assert!(clean, "the clients noticed: {self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sent, replies, writes_acknowledged, acknowledged_lost, .. } = self.tally;
        write!(f, "{sent} requests, {replies} replies, {writes_acknowledged} writes acknowledged, ")?;
        write!(f, "{acknowledged_lost} of them lost, {} connections reset, ", self.resets)?;
        write!(f, "longest silence {} ms", self.longest_silence.as_millis())?;
        if !self.complete {
            write!(f, ", not everything could be read back")?;
        }
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}
