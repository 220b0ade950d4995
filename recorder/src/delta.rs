//! Deltas: states in the log, where no execution leads, or where the policy wants them.

use std::{sync::atomic::Ordering, time::Instant};

use echovisor_event::{Position, limits::PAGE_SIZE};
use echovisor_log::{Cause, Record};
use echovisor_machine::{RunError, cpu::Cpu};

use crate::recorder::{RecordError, Recorder};

/// Pages in one batch, at most: heartbeats go between batches, and must not wait long on a thin link.
const PAGES_AT_ONCE: usize = 16;

impl<C: Cpu> Recorder<C> {
    /// The guest has made no exit for too long: makes a position of where it is, at which it can be given events.
    pub(crate) fn called_out(&mut self) -> Result<(), RecordError> {
        if !self.live.pace().has_overrun() {
            // It was called out just as it made one.
            self.live.pace().call_out_later();
            return Ok(());
        }
        self.live.jumped();
        if self.live.pace().policy().logs_events() {
            return self.delta(Cause::Quantum);
        }
        // The delta comes at the end of the epoch, or behind the next output.
        self.machine.jump();
        Ok(())
    }

    /// From here on the log is read by somebody who has the state that the machine is in: a delta has what changes from now on.
    pub(crate) fn begin_log(&mut self) -> Result<(), RecordError> {
        if self.is_unread() {
            return Ok(());
        }
        self.forget_changes()?;
        if !self.live.pace().policy().logs_events() {
            let (position, trail) = (self.machine.position(), self.machine.trail().0);
            self.live.journal().arrived(position, trail);
            self.live.pace().ship(true);
        }
        Ok(())
    }

    /// There is to be a checkpoint here: brings the log to where the machine stands.
    pub(crate) fn reach(&mut self) -> Result<(), RecordError> {
        if self.is_unread() {
            self.end_log();
        } else if !self.live.pace().is_shipping() {
            return self.begin_log();
        } else if self.live.lags(self.machine.position()) {
            self.delta(Cause::Checkpoint)?;
        }
        Ok(())
    }

    /// Goes to one position behind where the machine stands, and writes a delta to there from where the log ends, if anybody has what
    /// comes before it.
    pub(crate) fn delta(&mut self, cause: Cause) -> Result<(), RecordError> {
        let begun = Instant::now();
        let at = self.live.journal().watermark();
        self.machine.jump();
        if self.is_unread() {
            self.end_log();
        }
        let Some(changed) = self.changed.take() else { return Ok(()) };
        let pages = self.machine.changed_pages(&changed)?;
        self.changed = Some(changed);
        let state = self.machine.save()?.to_bytes();
        let mut contents = [0; PAGE_SIZE];
        for (number, page) in pages.iter().enumerate() {
            if self.live.journal().is_full() || number % PAGES_AT_ONCE == PAGES_AT_ONCE - 1 {
                self.live.flush();
            }
            self.machine.memory().read_page(page, &mut contents);
            let contents = if contents == [0; PAGE_SIZE] { &[][..] } else { &contents };
            self.push(at, Record::Page { page: page as u64, contents })?;
        }
        if self.live.journal().is_full() {
            self.live.flush();
        }
        self.push(at, Record::Delta { cause, state: &state })?;
        let (position, trail) = (self.machine.position(), self.machine.trail().0);
        self.live.journal().arrived(position, trail);
        self.live.flush();
        self.live.pace().shipped();
        let signals = self.live.signals();
        signals.deltas.fetch_add(1, Ordering::Relaxed);
        signals.delta_pages.fetch_add(pages.len() as u64, Ordering::Relaxed);
        signals.paused(begun.elapsed());
        Ok(())
    }

    /// Nobody needs deltas any more.
    fn end_log(&mut self) {
        self.live.pace().ship(false);
        if let Some(consumer) = self.changed.take() {
            self.machine.untrack_pages(consumer);
        }
    }

    /// Whoever stands here, by execution or by a capture, lacks nothing. What is not harvested yet will be in a later delta all the
    /// same, which does no harm.
    fn forget_changes(&mut self) -> Result<(), RecordError> {
        if self.changed.is_none() {
            self.changed = Some(self.machine.track_pages()?);
        }
        if let Some(changed) = &self.changed {
            self.machine.harvested(changed);
        }
        Ok(())
    }

    /// Whether nobody keeps the log or follows it.
    fn is_unread(&mut self) -> bool {
        self.live.signals().unread.load(Ordering::Acquire) || !self.live.journal().is_open()
    }

    fn push(&mut self, at: Position, record: Record<'_>) -> Result<(), RecordError> {
        self.live.journal().push(at, record).map_err(|error| RunError::World(error.into()))
    }
}
