//! Messages over a byte stream, in both directions.

use std::{
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    error::LinkError,
    message::Message,
    wire::{self, PREFIX},
};

/// How many bytes are asked of the system at once: a few batches under load.
const READ_CHUNK: usize = 64 << 10;

/// A connection to the peer. Its halves may be used from different tasks.
pub struct Link {
    /// To the peer.
    pub sender: Sender,
    /// From the peer.
    pub receiver: Receiver,
}

/// Bytes that a link has carried, as counted on the socket, prefixes included.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes written to the socket.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes read from the socket.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Link {
    /// A link over the two directions of a connection. Encryption wraps them before they come here.
    pub fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Link {
        let traffic = Arc::new(Traffic::default());
        Link {
            sender: Sender { io: Box::new(write), buffer: Vec::new(), written: 0, traffic: traffic.clone() },
            receiver: Receiver { io: Box::new(read), buffer: Vec::new(), start: 0, traffic },
        }
    }

    /// What the link has carried; the counters go on counting.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        self.sender.traffic.clone()
    }
}

/// The sending half of a [`Link`].
pub struct Sender {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that the system has taken.
    written: usize,
    traffic: Arc<Traffic>,
}

impl Sender {
    /// Adds a message to those that the next [`Sender::flush`] writes, all in one go where the system allows.
    ///
    /// # Errors
    ///
    /// [`LinkError::Wire`] if the message is longer than its kind may be; nothing was added.
    pub fn queue(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        Ok(wire::encode(message, &mut self.buffer)?)
    }

    /// Bytes that are queued and not yet written. Flush before queueing without bounds.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Writes what is queued. May be cancelled and called again.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`].
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        let broke = |source| LinkError::Io { doing: "sending", source };
        while self.queued() > 0 {
            match self.io.write(&self.buffer[self.written..]).await.map_err(broke)? {
                0 => return Err(broke(io::ErrorKind::WriteZero.into())),
                count => {
                    self.written += count;
                    self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
                }
            }
        }
        self.buffer.clear();
        self.written = 0;
        self.io.flush().await.map_err(broke)
    }

    /// Queues a message and flushes.
    ///
    /// # Errors
    ///
    /// As [`Sender::queue`] and [`Sender::flush`].
    pub async fn send(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        self.queue(message)?;
        self.flush().await
    }
}

/// Writes what is queued; waits for ever where nothing is, or nobody to write to. For use in a `select!`.
///
/// # Errors
///
/// [`LinkError::Io`].
pub async fn flush_or_wait(sender: Option<&mut Sender>) -> Result<(), LinkError> {
    match sender {
        Some(sender) if sender.queued() > 0 => sender.flush().await,
        _ => pending().await,
    }
}

/// The next message; waits for ever where nobody sends any. For use in a `select!`.
///
/// # Errors
///
/// As [`Receiver::receive`].
pub async fn receive_or_wait(receiver: Option<&mut Receiver>) -> Result<Message<'_>, LinkError> {
    match receiver {
        Some(receiver) => receiver.receive().await,
        None => pending().await,
    }
}

/// The receiving half of a [`Link`].
pub struct Receiver {
    io: Box<dyn AsyncRead + Send + Unpin>,
    /// From `start` on: what was read and not yet handed out.
    buffer: Vec<u8>,
    start: usize,
    traffic: Arc<Traffic>,
}

impl Receiver {
    /// The next message, checked. May be cancelled and called again.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] if the peer is gone, [`LinkError::CutOff`] if it is gone within a message, [`LinkError::Wire`]
    /// if what came is no message, and then no later message can be found; [`LinkError::Io`].
    pub async fn receive(&mut self) -> Result<Message<'_>, LinkError> {
        self.fill(PREFIX).await?;
        let prefix = self.buffer[self.start..].first_chunk().expect("filled");
        let (len, kind) = wire::prefix(*prefix)?;
        self.fill(PREFIX + len).await?;
        let body = self.start + PREFIX;
        self.start = body + len;
        Ok(wire::decode(kind, &self.buffer[body..body + len])?)
    }

    /// Whether a whole message has been read already, so that [`Receiver::receive`] would not wait.
    #[must_use]
    pub fn has_message(&self) -> bool {
        let pending = &self.buffer[self.start..];
        pending.first_chunk().is_some_and(|prefix| match wire::prefix(*prefix) {
            Ok((len, _)) => pending.len() >= PREFIX + len,
            Err(_) => true,
        })
    }

    /// Reads until `len` bytes are there.
    async fn fill(&mut self, len: usize) -> Result<(), LinkError> {
        while self.buffer.len() - self.start < len {
            if self.start > 0 {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
            self.buffer.reserve(READ_CHUNK.max(len - self.buffer.len()));
            let read = self.io.read_buf(&mut self.buffer).await;
            let count = read.map_err(|source| LinkError::Io { doing: "receiving", source })?;
            self.traffic.received.fetch_add(count as u64, Ordering::Relaxed);
            match (count, self.buffer.len()) {
                (0, 0) => return Err(LinkError::Closed),
                (0, bytes) => return Err(LinkError::CutOff { bytes }),
                _ => {}
            }
        }
        Ok(())
    }
}
