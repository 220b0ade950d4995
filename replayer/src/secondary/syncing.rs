//! Taking over a state from the primary: what was announced, and how far it is here.

use std::time::Duration;

use echovisor_event::{Position, limits::PAGE_SIZE};
use echovisor_log::link::{SyncAsk, SyncBegin};
use echovisor_machine::{MachineConfig, MachineState, boot::Symbols};
use echovisor_snapshot::sync::{Answer, Ask, Walk, WalkError};

use super::{base::Base, report::Report};

/// How often the log tells how far it is.
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// A state that has been announced.
pub(super) enum Syncing {
    /// Nothing was announced.
    Nothing,
    /// What is here already is being looked at.
    Preparing(SyncBegin),
    /// What is lacking is being fetched.
    Walking(Box<Walking>),
    /// It is complete, and a machine is made of it.
    Complete,
}

/// A walk through the primary's state.
pub(super) struct Walking {
    begin: SyncBegin,
    walk: Walk,
    /// What this memory was before: for the report of a divergence.
    former: Option<((Position, String), Option<MachineState>)>,
    /// Bytes that have come.
    bytes: u64,
    began: Duration,
    said: Duration,
}

/// A state that is complete, and a machine can be made of it.
pub struct Fetched {
    /// As it was announced.
    pub begin: SyncBegin,
    /// The memory with its content, and its digests.
    pub base: Base,
}

impl Walking {
    /// Begins to fetch what lacks in `base`. `noticed`: where and how it was found that it was not the primary's state.
    pub(super) fn new(
        now: Duration,
        begin: SyncBegin,
        base: Base,
        noticed: Option<(Position, String)>,
    ) -> Walking {
        let Base { memory, digests, state } = base;
        let walk = Walk::new(memory, digests, begin.root);
        let walk = if noticed.is_some() { walk.noting() } else { walk };
        let former = noticed.map(|noticed| (noticed, state));
        Walking { begin, walk, former, bytes: 0, began: now, said: now }
    }

    /// The next question, if one may be asked now.
    pub(super) fn ask(&mut self) -> Option<SyncAsk> {
        let Ask { level, left, numbers } = self.walk.ask()?;
        Some(SyncAsk { level, left, numbers })
    }

    /// Takes an answer.
    pub(super) fn take(&mut self, now: Duration, answer: Answer<'_>) -> Result<(), WalkError> {
        let (Answer::Nodes(bytes) | Answer::Pages(bytes)) = answer;
        self.bytes += bytes.len() as u64;
        self.walk.take(answer)?;
        if now.saturating_sub(self.said) >= SAY_AGAIN {
            self.said = now;
            self.say(now);
        }
        Ok(())
    }

    fn say(&self, now: Duration) {
        let (done, total) = self.progress();
        let seconds = now.saturating_sub(self.began).as_secs_f64().max(0.001);
        let rate = done as f64 / seconds;
        let left = if rate > 0.0 { (total - done) as f64 / rate } else { 0.0 };
        tracing::info!(
            "fetching the state: {} of {} MiB, {:.1} MiB/s, {left:.0} s to go",
            done >> 20,
            total >> 20,
            rate / f64::from(1 << 20)
        );
    }

    /// Bytes of pages that have come, and of all that lack, before compression.
    pub(super) fn progress(&self) -> (u64, u64) {
        let page = PAGE_SIZE as u64;
        let fetched = self.walk.fetched();
        (fetched * page, (fetched + u64::from(self.walk.left())) * page)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.walk.is_complete()
    }

    /// Breaks off; what has come stays.
    pub(super) fn break_off(self) -> Base {
        let (memory, digests, _) = self.walk.end();
        Base { memory, digests, state: None }
    }

    /// The walk is complete: the state, and what was wrong with the one before, with names by `symbols`.
    pub(super) fn end(
        self,
        now: Duration,
        symbols: fn(&MachineConfig) -> Symbols,
    ) -> (Fetched, Option<Report>) {
        let (done, _) = self.progress();
        tracing::info!(
            "the state at position {} is here: of {} bytes of memory {done} were sent, in {} bytes and {:.2} s",
            self.begin.position,
            self.begin.memory,
            self.bytes,
            now.saturating_sub(self.began).as_secs_f64()
        );
        let (memory, digests, differences) = self.walk.end();
        let report = self.former.and_then(|(noticed, found)| {
            let expected = MachineState::from_bytes(&self.begin.state).ok()?;
            let symbols = MachineConfig::from_bytes(&self.begin.config)
                .map_or_else(|_| Symbols::default(), |config| symbols(&config));
            Some(Report::new(noticed, &expected, found.as_ref(), differences, symbols))
        });
        (Fetched { begin: self.begin, base: Base { memory, digests, state: None } }, report)
    }
}
