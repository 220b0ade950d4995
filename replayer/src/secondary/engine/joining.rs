//! How a secondary gets a state: the primary announces one, its parts are fetched, and a machine is made of them.

use std::{sync::Arc, time::Duration};

use echovisor_log::link::{Message, SyncBegin};
use echovisor_snapshot::sync::Answer as Part;

use super::{Engine, Order};
use crate::secondary::{
    base::Base,
    inbox::Unfit,
    protocol::{Input, State},
    syncing::{Syncing, Walking},
};

impl Engine {
    /// The primary retains a state for this node.
    pub(super) fn announced(&mut self, now: Duration, begin: SyncBegin) {
        if self.state() != State::Loading || !matches!(self.syncing, Syncing::Nothing) {
            return self.unfit(now, &Unfit::Order("a state"));
        }
        tracing::info!("fetching the state at position {}", begin.position);
        self.input(now, Input::Announced);
        self.inbox.begin(begin.position);
        self.announced = Some((begin.position, begin.digest));
        match self.base.take().filter(|base| base.memory.size() == begin.memory) {
            Some(base) => self.walk(now, begin, base),
            None => {
                self.orders.push_back(Order::Prepare(begin.memory));
                self.syncing = Syncing::Preparing(begin);
            }
        }
    }

    /// What came of [`Order::Prepare`].
    pub fn prepared(&mut self, now: Duration, prepared: Result<Base, String>) {
        match (std::mem::replace(&mut self.syncing, Syncing::Nothing), prepared) {
            (Syncing::Preparing(begin), Ok(base)) => self.walk(now, begin, base),
            (Syncing::Preparing(_), Err(error)) => {
                tracing::error!("there is no memory for the primary's state: {error}");
                self.input(now, Input::Unfit);
            }
            // It was for a state that is not announced any more.
            (syncing, prepared) => {
                self.syncing = syncing;
                self.base = prepared.ok().filter(|_| self.announced.is_none());
            }
        }
    }

    fn walk(&mut self, now: Duration, begin: SyncBegin, base: Base) {
        if base.memory.size() != begin.memory {
            return self.unfit(now, &Unfit::Order("a state of this size"));
        }
        let walking = Walking::new(now, begin, base, self.noticed.clone());
        self.syncing = Syncing::Walking(Box::new(walking));
        self.fetch(now);
    }

    /// A part of the state has come.
    pub(super) fn part(&mut self, now: Duration, part: Part<'_>) {
        let Syncing::Walking(walking) = &mut self.syncing else {
            return self.unfit(now, &Unfit::Order("a part of a state"));
        };
        match walking.take(now, part) {
            Ok(()) => self.fetch(now),
            Err(error) => self.unfit(now, &error.into()),
        }
    }

    /// Asks for what lacks, or goes on once nothing does.
    fn fetch(&mut self, now: Duration) {
        let Syncing::Walking(walking) = &mut self.syncing else { return };
        if !walking.is_complete() {
            while let Syncing::Walking(walking) = &mut self.syncing
                && let Some(ask) = walking.ask()
            {
                self.send(&Message::SyncAsk(ask));
            }
            return;
        }
        let Syncing::Walking(walking) = std::mem::replace(&mut self.syncing, Syncing::Complete) else {
            return;
        };
        let (fetched, report) = walking.end(now, self.symbols);
        self.noticed = None;
        if let Some(report) = report {
            tracing::error!("healed a divergence: {report}");
            let report = Arc::new(report);
            self.status.last_divergence = Some(report.clone());
            self.report = Some(report);
        }
        self.progress = Arc::default();
        self.orders.push_back(Order::Load(Box::new(fetched), self.progress.clone()));
    }

    /// What came of [`Order::Load`].
    pub fn loaded(&mut self, now: Duration, loaded: Result<(), String>) {
        match loaded {
            Ok(()) => {
                self.syncing = Syncing::Nothing;
                self.base = None;
                self.input(now, Input::Loaded);
                self.input(now, Input::Held(self.inbox.held()));
            }
            Err(error) => {
                tracing::error!("the primary's state cannot be loaded: {error}");
                self.input(now, Input::Unfit);
            }
        }
    }
}
