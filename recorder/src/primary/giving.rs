//! A state on its way to a secondary: questions come in, answers go out, and neither is in the way of log and heartbeats.

use std::collections::VecDeque;

use echovisor_event::limits::PAGE_SIZE;
use echovisor_log::link::{LinkError, Message, Sender, SyncAsk, SyncBegin};
use echovisor_snapshot::sync::{Ask, AskError, Source};

/// Questions that may wait. A secondary asks few ahead.
const WAITING: usize = 64;

/// Bytes that may wait for the socket when an answer is added: the log and the heartbeats wait behind them.
const QUEUED: usize = 64 << 10;

/// A secondary that does not ask as one should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// It asks though it has been announced nothing.
    #[error("it asks for a state that it was not given")]
    Unasked,
    /// It asks without waiting for answers.
    #[error("it asks for more than it can take")]
    TooMany,
    /// It asks for what is not there.
    #[error("it asks for a part of the state that there is not: {0}")]
    Ask(#[from] AskError),
    /// The answer cannot be sent.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A retained state that a secondary is being given.
pub(super) struct Giving {
    source: Source,
    asked: VecDeque<Ask>,
    /// Pages that were sent.
    pages: u64,
    /// Pages that the secondary has not been sent yet, as far as it knows.
    left: u64,
    /// Bytes of all answers.
    bytes: u64,
}

impl Giving {
    pub(super) fn new(source: Source) -> Giving {
        Giving { source, asked: VecDeque::new(), pages: 0, left: 0, bytes: 0 }
    }

    /// What the secondary is told of the state first.
    pub(super) fn announcement(&self, config: Vec<u8>) -> SyncBegin {
        SyncBegin {
            position: self.source.position(),
            memory: self.source.memory_size(),
            root: self.source.root(),
            digest: self.source.digest(),
            config,
            state: self.source.state().to_bytes(),
        }
    }

    /// Takes a question.
    pub(super) fn ask(&mut self, ask: &SyncAsk) -> Result<(), Unfit> {
        if self.asked.len() >= WAITING {
            return Err(Unfit::TooMany);
        }
        let SyncAsk { level, left, numbers } = ask.clone();
        if level == 0 {
            self.left = left.into();
        }
        self.asked.push_back(Ask { level, left, numbers });
        Ok(())
    }

    /// Queues answers while little waits for the socket.
    pub(super) fn answer(&mut self, sender: &mut Sender) -> Result<(), Unfit> {
        while sender.queued() < QUEUED
            && let Some(ask) = self.asked.pop_front()
        {
            let answer = self.source.answer(&ask)?;
            self.bytes += answer.len() as u64;
            if ask.level == 0 {
                self.pages += ask.numbers.len() as u64;
                self.left = self.left.saturating_sub(ask.numbers.len() as u64);
                sender.queue(&Message::SyncPages(&answer))?;
            } else {
                sender.queue(&Message::SyncNodes(&answer))?;
            }
        }
        Ok(())
    }

    /// Bytes of pages that were sent, and that are to be sent in all, before compression.
    pub(super) fn progress(&self) -> (u64, u64) {
        let page = PAGE_SIZE as u64;
        (self.pages * page, (self.pages + self.left) * page)
    }

    /// Bytes that it took so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Size of RAM, bytes.
    pub(super) fn memory_size(&self) -> u64 {
        self.source.memory_size()
    }
}
