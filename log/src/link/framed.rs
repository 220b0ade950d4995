//! Messages over a byte stream, in both directions.

use std::{
    future::{pending, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    error::LinkError,
    kind::MessageKind,
    message::Message,
    traffic::{Counted, Traffic},
    wire::{self, PREFIX},
};

/// How many bytes are read ahead at most: a few batches under load.
const READ_CHUNK: usize = 64 << 10;

/// A connection to the peer. Its halves may be used from different tasks.
pub struct Link {
    /// To the peer.
    pub sender: Sender,
    /// From the peer.
    pub receiver: Receiver,
    traffic: Arc<Traffic>,
}

impl Link {
    /// A link in plain text over the two directions of a connection.
    pub fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Link {
        let traffic = Arc::new(Traffic::default());
        Link::over(Counted::new(read, &traffic), Counted::new(write, &traffic), traffic)
    }

    /// A link over two directions below which `traffic` is counted.
    pub(super) fn over(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
        traffic: Arc<Traffic>,
    ) -> Link {
        Link {
            sender: Sender { io: Box::new(write), buffer: Vec::new(), written: 0, next: 0, unflushed: false },
            receiver: Receiver { io: Box::new(read), buffer: Vec::new(), start: 0, legal: MessageKind::ALL },
            traffic,
        }
    }

    /// What the link has carried; the counters go on counting.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }
}

/// The sending half of a [`Link`].
pub struct Sender {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were taken.
    written: usize,
    /// Where a message begins, not far from there: in between, when this was looked up last.
    next: usize,
    /// What was taken may not have reached the system yet: encryption has a buffer of its own.
    unflushed: bool,
}

impl Sender {
    /// Adds a message to those that the next [`Sender::flush`] writes, all in one go where the system allows.
    ///
    /// # Errors
    ///
    /// [`LinkError::Wire`] if the message is longer than its kind may be; nothing was added.
    pub fn queue(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        self.forget_written();
        Ok(wire::encode(message, &mut self.buffer)?)
    }

    /// The same, but before the parts of log and state that are queued and not begun: for what is of use soon or not at all.
    ///
    /// # Errors
    ///
    /// As [`Sender::queue`].
    pub fn queue_first(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        wire::encode(message, &mut bytes)?;
        let mut place = self.next_message();
        while let Some(prefix) = self.buffer[place..].first_chunk()
            && wire::prefix(*prefix).is_ok_and(|(_, kind)| !kind.is_bulk())
        {
            place += wire::message_len(*prefix);
        }
        self.buffer.splice(place..place, bytes);
        Ok(())
    }

    /// Where the first message begins of which nothing was taken.
    fn next_message(&mut self) -> usize {
        while self.next < self.written
            && let Some(prefix) = self.buffer[self.next..].first_chunk()
        {
            self.next += wire::message_len(*prefix);
        }
        self.next
    }

    /// Frees the memory of what was taken, where that is much: while more comes than the peer takes, there is always something left.
    fn forget_written(&mut self) {
        if self.written >= READ_CHUNK.max(self.buffer.len() / 2) {
            self.next = self.next_message() - self.written;
            self.buffer.drain(..self.written);
            self.written = 0;
        }
    }

    /// Bytes that are queued and not yet written. Flush before queueing without bounds.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Whether [`Sender::flush`] has nothing to do.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.queued() == 0 && !self.unflushed
    }

    /// Writes what is queued. May be cancelled and called again.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`], [`LinkError::Tls`].
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        let broke = |source| LinkError::io("sending", source);
        while self.queued() > 0 {
            self.unflushed = true;
            match self.io.write(&self.buffer[self.written..]).await.map_err(broke)? {
                0 => return Err(broke(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.buffer.clear();
        (self.written, self.next) = (0, 0);
        self.io.flush().await.map_err(broke)?;
        self.unflushed = false;
        Ok(())
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
/// As [`Sender::flush`].
pub async fn flush_or_wait(sender: Option<&mut Sender>) -> Result<(), LinkError> {
    match sender {
        Some(sender) if !sender.is_flushed() => sender.flush().await,
        _ => pending().await,
    }
}

/// Writes what is queued, as much as the system takes without waiting. `None` if nothing is, nobody is there to write to, or something is
/// left.
///
/// # Errors
///
/// As [`Sender::flush`].
pub async fn flush_at_once(sender: Option<&mut Sender>) -> Option<Result<(), LinkError>> {
    let sender = sender.filter(|sender| !sender.is_flushed())?;
    let mut flush = pin!(sender.flush());
    poll_fn(|cx| match flush.as_mut().poll(cx) {
        Poll::Ready(flushed) => Poll::Ready(Some(flushed)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
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
    /// What the peer may say in the present state of the link.
    legal: &'static [MessageKind],
}

impl Receiver {
    /// From now on the peer may say this and nothing else. What is longer than any of it is not even read.
    pub(super) fn expect(&mut self, legal: &'static [MessageKind]) {
        self.legal = legal;
    }

    /// The next message, checked. May be cancelled and called again.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] if the peer is gone, [`LinkError::CutOff`] if it is gone within a message, [`LinkError::Wire`]
    /// if what came is no message and [`LinkError::Unexpected`] if it does not belong here, and then no later message can be
    /// found; [`LinkError::Io`], [`LinkError::Tls`].
    pub async fn receive(&mut self) -> Result<Message<'_>, LinkError> {
        self.fill(PREFIX).await?;
        let prefix = self.buffer[self.start..].first_chunk().expect("filled");
        let (len, kind) = self.check(*prefix)?;
        self.fill(PREFIX + len).await?;
        let body = self.start + PREFIX;
        self.start = body + len;
        Ok(wire::decode(kind, &self.buffer[body..body + len])?)
    }

    /// Whether a whole message has been read already, so that [`Receiver::receive`] would not wait.
    #[must_use]
    pub fn has_message(&self) -> bool {
        let pending = &self.buffer[self.start..];
        pending.first_chunk().is_some_and(|prefix| match self.check(*prefix) {
            Ok((len, _)) => pending.len() >= PREFIX + len,
            Err(_) => true,
        })
    }

    /// Reads a message's prefix, and refuses what must not come now.
    fn check(&self, prefix: [u8; PREFIX]) -> Result<(usize, MessageKind), LinkError> {
        let (len, kind) = wire::prefix(prefix)?;
        if self.legal.contains(&kind) {
            Ok((len, kind))
        } else {
            Err(LinkError::Unexpected { expected: self.legal, found: kind })
        }
    }

    /// Reads until `len` bytes are there, and takes along what is here already: what was encrypted comes record by record.
    async fn fill(&mut self, len: usize) -> Result<(), LinkError> {
        let filled = |receiver: &Receiver| receiver.buffer.len() - receiver.start >= len;
        if filled(self) {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let longest = self.legal.iter().map(|kind| PREFIX + kind.longest()).max().unwrap_or(PREFIX);
        self.buffer.reserve(READ_CHUNK.min(longest).max(len - self.buffer.len()));
        poll_fn(|cx| {
            loop {
                let full = self.buffer.len() == self.buffer.capacity();
                let read =
                    if full { Poll::Pending } else { pin!(self.io.read_buf(&mut self.buffer)).poll(cx) };
                match read {
                    Poll::Ready(Ok(1..)) => {}
                    // The end is told to who asks for more.
                    _ if filled(self) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.end())),
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        // Encryption wants a word of farewell, which a process that dies does not say; framing tells as well.
                        return Poll::Ready(Err(self.end()));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(LinkError::io("receiving", error))),
                }
            }
        })
        .await
    }

    /// The peer is gone.
    fn end(&self) -> LinkError {
        match self.buffer.len() - self.start {
            0 => LinkError::Closed,
            bytes => LinkError::CutOff { bytes },
        }
    }
}
