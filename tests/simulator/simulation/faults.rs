//! What goes wrong, and the operator who sets it right.

use echovisor_event::NodeId;
use echovisor_log::{
    arbiter::{Mode, Record},
    link::Fingerprint,
};
use echovisor_replayer::secondary::protocol::State;

use super::{Event, OPERATOR, Simulation};
use crate::{
    node::{Process, Role, Step, secondary::Secondary},
    plan::{Fault, SLOTS, Whom},
    time::{MILLISECOND, SECOND, Time},
};

impl Simulation {
    pub(super) fn whom(&self, whom: Whom) -> Option<usize> {
        match (whom, self.arbiter.record?.mode) {
            (Whom::Slot(slot), _) => Some(slot),
            (Whom::Primary, _) => self.holder(),
            (Whom::Peer, Mode::Protected(peer)) => self.slot_of(peer),
            (Whom::Peer, _) => None,
            (Whom::Joiner, mode) => self.slots.iter().position(|slot| match &slot.process {
                Some(Process { id, role: Role::Secondary(secondary), .. }) => {
                    mode != Mode::Protected(*id)
                        && matches!(secondary.engine.state(), State::Loading | State::Following)
                }
                _ => false,
            }),
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        tracing::trace!("{} us: {fault:?}", self.now / 1000);
        match fault {
            Fault::Partition { one, other, one_way, lasts } => {
                let (Some(one), Some(other)) = (self.whom(one), self.whom(other)) else { return };
                let until = (self.now + lasts).min(self.plan.heal_at);
                self.net.block(one, other, until);
                if !one_way {
                    self.net.block(other, one, until);
                }
            }
            Fault::Cut { one, other } => {
                let (Some(one), Some(other)) = (self.whom(one), self.whom(other)) else { return };
                self.net.cut(one, other);
                self.pump();
                self.wake(one, self.now);
                self.wake(other, self.now);
            }
            Fault::Pause { whom, lasts } => {
                let Some(slot) = self.whom(whom) else { return };
                let until = (self.now + lasts).min(self.plan.heal_at);
                self.slots[slot].paused_until = self.slots[slot].paused_until.max(until);
            }
            Fault::Crash(whom) => {
                if let Some(slot) = self.whom(whom).filter(|slot| !self.is_spared(*slot)) {
                    self.crash(slot);
                    self.pump();
                }
            }
            Fault::PowerLoss { whom, lasts } => {
                let slot = self.whom(whom).filter(|slot| self.slots[*slot].powered && !self.is_spared(*slot));
                let Some(slot) = slot else { return };
                self.net.lose(slot);
                self.crash(slot);
                self.slots[slot].powered = false;
                if lasts < Time::MAX {
                    let up = (self.now + lasts).min(self.plan.heal_at);
                    self.schedule(up, Event::PowerUp(slot));
                }
            }
            Fault::NoArbiter { lasts } => self.arbiter.gone_until = self.now + lasts,
            Fault::NoRecord { lasts } => self.arbiter.hidden_until = self.now + lasts,
            Fault::StallNode { whom, lasts } => {
                let Some(slot) = self.whom(whom) else { return };
                let until = (self.now + lasts).min(self.plan.heal_at);
                self.slots[slot].stalled_until = self.slots[slot].stalled_until.max(until);
            }
            Fault::Rot(whom) => {
                if let Some(secondary) = self.whom(whom).and_then(|slot| self.any_secondary(slot))
                    && let Some(replica) = &secondary.replica
                {
                    replica.rot();
                    secondary.rotten = true;
                }
            }
            Fault::StallReplica { whom, lasts } => {
                let until = (self.now + lasts).min(self.plan.heal_at);
                if let Some(secondary) = self.whom(whom).and_then(|slot| self.any_secondary(slot)) {
                    secondary.replica_stalled = until;
                }
            }
        }
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.net.heal();
        self.arbiter.gone_until = 0;
        self.arbiter.hidden_until = 0;
        self.arbiter.lossy = 0;
        self.arbiter.slow = MILLISECOND;
        self.plan.frame_loss = 0;
        for slot in 0..SLOTS {
            self.slots[slot].paused_until = self.now;
            self.slots[slot].stalled_until = self.now;
            let now = self.now;
            if let Some(secondary) = self.any_secondary(slot) {
                secondary.replica_stalled = now;
            }
            self.wake(slot, self.now);
            self.run_guest(slot, self.now);
        }
        self.clients.healed();
        self.pump();
    }

    /// A process dies.
    pub(super) fn crash(&mut self, slot: usize) {
        if self.slots[slot].process.take().is_none() {
            return;
        }
        self.run.crashes += 1;
        self.slots[slot].backlog.clear();
        self.slots[slot].paused_until = self.now;
        self.slots[slot].stalled_until = self.now;
        let after = self.rng.u64(50 * MILLISECOND..1500 * MILLISECOND);
        self.slots[slot].start_at = self.now + after;
        let survivable = self.survives(None);
        self.oracles.progress.crashed(survivable);
    }

    /// Whether this host is the last that can run the guest, and its death would end a run too early: few do.
    pub(super) fn is_spared(&self, slot: usize) -> bool {
        !self.survives(Some(slot)) && !self.plan.seed.is_multiple_of(8)
    }

    /// Whether somebody runs the guest, or may take over, without this host.
    pub(super) fn survives(&self, without: Option<usize>) -> bool {
        let Some(record) = self.arbiter.record else { return false };
        let others = self.slots.iter().enumerate().filter(|(slot, _)| Some(*slot) != without);
        record.mode == Mode::Ended
            || others.filter_map(|(_, slot)| slot.process.as_ref()).any(|process| {
                let eligible = || match &process.role {
                    Role::Secondary(secondary) => {
                        secondary.engine.is_eligible() || secondary.engine.may_go_back()
                    }
                    Role::Primary(_) => false,
                };
                process.id == record.holder || record.mode == Mode::Protected(process.id) && eligible()
            })
    }

    /// The operator starts what is down, and lets secondaries join where the primary is.
    pub(super) fn operate(&mut self) {
        self.schedule(self.now + OPERATOR, Event::Operator);
        let primary = self.holder().filter(|slot| self.any_primary(*slot).is_some());
        let Some(primary) = primary.filter(|_| !self.arbiter.ended()) else { return };
        for slot in (0..SLOTS).filter(|slot| *slot != primary) {
            let host = &self.slots[slot];
            let misled = match &host.process {
                None => host.powered && host.start_at <= self.now,
                Some(Process { role: Role::Secondary(secondary), .. }) => {
                    secondary.target != primary
                        && secondary.engine.state() == State::Dialling
                        && secondary.searching_since + SECOND <= self.now
                }
                Some(_) => false,
            };
            if misled && host.paused_until <= self.now {
                self.start(slot, primary);
            }
        }
    }

    /// The operator wants the roles to be swapped.
    pub(super) fn switch(&mut self, whom: Whom) {
        let Some(slot) = self.whom(whom) else { return };
        match self.slots[slot].process.as_mut().map(|process| &mut process.role) {
            Some(Role::Primary(primary)) => primary.switch_wanted = true,
            Some(Role::Secondary(secondary)) => secondary.switch_wanted = true,
            None => return,
        }
        self.wake(slot, self.now);
    }

    /// Starts a secondary.
    pub(super) fn start(&mut self, slot: usize, target: usize) {
        self.slots[slot].process = None;
        self.slots[slot].backlog.clear();
        let id = self.identity(slot);
        self.begin_to_follow(slot, id, target, None);
    }

    /// A primary finds that another runs the guest, and follows that.
    pub(super) fn follow(&mut self, slot: usize, record: &Record) {
        let Some(Process { id, .. }) = self.slots[slot].process.take() else { return };
        // Its listening socket stays.
        self.begin_to_follow(slot, id, slot_of_node(record.holder), Some(record));
    }

    fn begin_to_follow(&mut self, slot: usize, id: NodeId, target: usize, known: Option<&Record>) {
        let (timing, mutant) = (self.plan.secondary, self.plan.mutant);
        let fingerprint = Fingerprint::default();
        let mut secondary = Secondary::new(id, target, fingerprint, timing, self.now, mutant, known);
        let mut wants = Vec::new();
        let local = self.slots[slot].clock.read(self.now);
        secondary.begin(&mut Step {
            now: self.now,
            local,
            instants: self.instants,
            rng: &mut self.rng,
            wants: &mut wants,
        });
        self.slots[slot].process =
            Some(Process { id, role: Role::Secondary(Box::new(secondary)), asking: None });
        for want in wants {
            self.fulfil(slot, want).expect("who begins breaks no rule");
        }
        self.wake(slot, self.now);
        self.pump();
    }
}

/// The host on which a node runs: identities are given by [`Simulation::identity`].
fn slot_of_node(node: NodeId) -> usize {
    usize::from(node.0[0]) - 1
}
