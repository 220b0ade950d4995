//! A process that follows a primary.

use std::{sync::Arc, time::Duration};

use echovisor_event::{NodeId, Position, Term};
use echovisor_log::{
    arbiter::{Answer, Question, Record, rules},
    link::{Fingerprint, Hello, Link, LinkError, Message, Receiver, Refuse, check_welcome},
};
use echovisor_replayer::{
    FollowError, Progress,
    secondary::{
        Base, Engine, Fetched, Order,
        protocol::{State, Timing},
    },
};

use super::{Step, Want, replica::Replica};
use crate::{
    mutant::Mutant,
    net::{flush, receive},
    time::{MILLISECOND, Time},
};

/// A secondary.
pub(crate) struct Secondary {
    pub(crate) engine: Engine,
    /// The slot where its primary listens.
    pub(crate) target: usize,
    /// The term of the log that it follows.
    pub(crate) term: Term,
    pub(crate) replica: Option<Replica>,
    pub(crate) dial: Option<Dial>,
    id: NodeId,
    connection: Option<Receiver>,
    /// A state that is being loaded, and when that is done.
    loading: Option<Loading>,
    /// What is here for a state that was announced is being looked at: when that is done, and what it is.
    preparing: Option<(Time, Base)>,
    /// The memory of a machine that was given up.
    former: Option<Base>,
    /// Batches that came before their state was loaded.
    early: Vec<echovisor_replayer::Arrived>,
    answer: Option<Answer>,
    /// The operator wants a switchover.
    pub(crate) switch_wanted: bool,
    promoted: Option<Record>,
    /// The guest was stopped, and that goes on record.
    ending: bool,
    /// When it began to look for a primary, and found none since.
    pub(crate) searching_since: Time,
    /// Until when the replaying thread does nothing.
    pub(crate) replica_stalled: Time,
    /// When the replica runs next.
    pub(crate) replica_at: Option<Time>,
    /// What was found wrong with the replica's state.
    pub(crate) diverged: Option<String>,
    /// Its memory is bad, so that it must diverge.
    pub(crate) rotten: bool,
    mutant: Mutant,
}

struct Loading {
    ready: Time,
    fetched: Box<Fetched>,
    progress: Arc<Progress>,
}

/// A dialling under way.
pub(crate) struct Dial {
    pub(crate) hello: Hello,
    pub(crate) until: Duration,
    pub(crate) link: Option<Link>,
    /// What came of it already.
    pub(crate) failed: Option<LinkError>,
}

impl Secondary {
    pub(crate) fn new(
        id: NodeId,
        target: usize,
        fingerprint: Fingerprint,
        timing: Timing,
        now: Time,
        mutant: Mutant,
        known: Option<&Record>,
    ) -> Secondary {
        let engine = Engine::new(id, fingerprint, timing);
        Secondary {
            engine: match known {
                Some(record) => engine.knowing(record),
                None => engine,
            },
            target,
            term: Term(0),
            replica: None,
            dial: None,
            id,
            connection: None,
            loading: None,
            preparing: None,
            former: None,
            early: Vec::new(),
            answer: None,
            switch_wanted: false,
            promoted: None,
            ending: false,
            searching_since: now,
            replica_stalled: 0,
            replica_at: None,
            diverged: None,
            rotten: false,
            mutant,
        }
    }

    pub(crate) fn begin(&mut self, step: &mut Step<'_>) {
        self.engine.begin(step.local);
        self.obey(step);
    }

    pub(crate) fn answered(&mut self, answer: Answer) {
        self.answer = Some(answer);
    }

    /// Where it began to follow.
    pub(crate) fn begun(&self) -> Option<Position> {
        self.replica.as_ref().map(|replica| replica.begun)
    }

    /// When to step again, if nothing comes in before: by the host's clock, and by the simulation's.
    pub(crate) fn wake_at(&self) -> (Option<Duration>, Option<Time>) {
        let dial = self.dial.as_ref().filter(|dial| dial.link.is_some()).map(|dial| dial.until);
        let local = [self.engine.wake_at(), dial].into_iter().flatten().min();
        let loading = self.loading.as_ref().map(|loading| loading.ready);
        let replica = self.replica_at.map(|at| at.max(self.replica_stalled));
        let preparing = self.preparing.as_ref().map(|(ready, _)| *ready);
        (local, [loading, preparing, replica].into_iter().flatten().min())
    }

    /// Handles one thing that is there, as a node's loop does; whether there was any.
    pub(crate) fn step(&mut self, step: &mut Step<'_>) -> bool {
        let worked = self.work(step);
        if worked {
            self.obey(step);
        }
        worked
    }

    fn work(&mut self, step: &mut Step<'_>) -> bool {
        let local = step.local;
        let settled = self.connection.as_ref().is_none_or(|receiver| !receiver.has_message());
        if settled && let Some(flushed) = flush(self.engine.sender()) {
            if let Err(error) = flushed {
                self.engine.link_lost(local, &error.to_string());
            }
            return true;
        }
        if let Some(message) = self.connection.as_mut().and_then(receive) {
            match message {
                Ok(message) => self.engine.message(local, step.instants.at(step.now), message, None),
                Err(error) => self.engine.link_lost(local, &error.to_string()),
            }
            return true;
        }
        if self.dialled(local) {
            return true;
        }
        if std::mem::take(&mut self.switch_wanted) {
            // It may have to join first.
            let _ = self.engine.promote();
            self.mutant.seize(self.id, step);
            return true;
        }
        if let Some(answer) = self.answer.take() {
            if self.ending {
                step.wants.push(Want::Exit);
            } else {
                self.engine.answered(local, Some(answer));
            }
            return true;
        }
        if let Some((_, base)) = self.preparing.take_if(|(ready, _)| *ready <= step.now) {
            self.engine.prepared(local, Ok(base));
            return true;
        }
        if let Some(loading) = self.loading.take_if(|loading| loading.ready <= step.now) {
            self.load(loading, step);
            return true;
        }
        let due = self.replica_at.is_some_and(|at| at.max(self.replica_stalled) <= step.now);
        if due
            && self.promoted.is_none()
            && let Some(replica) = &mut self.replica
        {
            match replica.run(4) {
                Ok(more) => {
                    self.replica_at = more.then(|| step.now + step.rng.u64(10_000..400_000));
                    if !more && std::mem::take(&mut replica.returning) {
                        self.engine.went_back(local, Ok(()));
                    }
                }
                // It goes on as far as it can.
                Err(_) if replica.strayed => self.replica_at = None,
                Err(error) => {
                    replica.returning = false;
                    self.diverged = Some(error.to_string());
                    let goes_on = matches!(error, FollowError::Digest { .. });
                    self.replica_at = goes_on.then_some(step.now);
                    replica.stray();
                    // The answer may make this node the only one that could run the guest: then it goes back.
                    if self.engine.state() != State::TakingOver {
                        self.engine.diverged(local, &error.to_string());
                    }
                }
            }
            return true;
        }
        if self.engine.wake_at().is_some_and(|at| at <= local) {
            self.engine.tick(local);
            return true;
        }
        false
    }

    /// Hears what came of dialling; whether anything did.
    fn dialled(&mut self, local: Duration) -> bool {
        let Some(dial) = &mut self.dial else { return false };
        if let Some(error) = dial.failed.take() {
            self.dial = None;
            self.engine.not_connected(local, &error);
            return true;
        }
        let Some(link) = &mut dial.link else { return false };
        let answer = match receive(&mut link.receiver) {
            None if local < dial.until => return false,
            None => Err(LinkError::Timeout { after: Duration::ZERO }),
            Some(Ok(Message::Welcome(welcome))) => check_welcome(&welcome, &dial.hello).map(|()| welcome),
            Some(Ok(Message::Refuse(Refuse { code, text }))) => Err(LinkError::Refused { code, text }),
            Some(Ok(other)) => panic!("a primary answers with a welcome or a refusal: {other:?}"),
            Some(Err(error)) => Err(error),
        };
        let Link { sender, receiver, .. } = self.dial.take().and_then(|dial| dial.link).expect("a link");
        match answer {
            Ok(welcome) => {
                self.connection = Some(receiver);
                self.term = welcome.term;
                self.engine.connected(local, sender, &welcome);
            }
            Err(error) => self.engine.not_connected(local, &error),
        }
        true
    }

    fn load(&mut self, loading: Loading, step: &mut Step<'_>) {
        let Loading { fetched, progress, .. } = loading;
        match Replica::make(*fetched, progress, step.now) {
            Ok(mut replica) => {
                self.early.drain(..).for_each(|arrived| replica.append(arrived));
                self.replica = Some(replica);
                self.replica_at = Some(step.now);
                // Whatever was wrong with the machine before is not in this one.
                self.forgive();
                self.engine.loaded(step.local, Ok(()));
                self.mutant.grant_early(&mut self.engine, step);
            }
            Err(error) => {
                self.diverged = Some(error.to_string());
                self.engine.loaded(step.local, Err(error.to_string()));
            }
        }
    }

    /// Forgets that the machine was bad. What is wrong with a good machine is for the oracle to see.
    fn forgive(&mut self) {
        self.diverged.take_if(|_| std::mem::take(&mut self.rotten));
        self.rotten = false;
    }

    fn obey(&mut self, step: &mut Step<'_>) {
        while let Some(order) = self.engine.order() {
            match order {
                Order::Dial(at, hello) => {
                    step.wants.push(Want::Dial(at, hello));
                }
                Order::HangUp(sender) => step.wants.push(Want::HangUp(sender)),
                Order::Prepare(size) => {
                    let former = self.replica.take().map(Replica::into_base).or_else(|| self.former.take());
                    let former = former.filter(|base| base.memory.size() == size);
                    let base = former.unwrap_or_else(|| Base::new(size).expect("memory"));
                    let ready = step.now + step.rng.u64(MILLISECOND..200 * MILLISECOND);
                    self.preparing = Some((ready, base));
                    self.replica_at = None;
                }
                Order::Load(fetched, progress) => {
                    let ready = step.now + step.rng.u64(MILLISECOND..200 * MILLISECOND);
                    self.loading = Some(Loading { ready, fetched, progress });
                }
                Order::Append(arrived) => match &mut self.replica {
                    Some(replica) => {
                        replica.append(arrived);
                        self.replica_at.get_or_insert(step.now + step.rng.u64(10_000..400_000));
                    }
                    None => self.early.push(arrived),
                },
                Order::GoBack => {
                    let replica = self.replica.as_mut().expect("who was granted something has a machine");
                    match replica.go_back() {
                        Ok(()) => {
                            self.replica_at = Some(step.now + step.rng.u64(MILLISECOND..200 * MILLISECOND));
                            self.forgive();
                        }
                        Err(error) => self.engine.went_back(step.local, Err(error)),
                    }
                }
                Order::Forget => {
                    self.forgive();
                    self.former = self.replica.take().map(Replica::into_base).or(self.former.take());
                    self.loading = None;
                    self.early.clear();
                    self.replica_at = None;
                    self.searching_since = step.now;
                }
                Order::Ask(question) => step.wants.push(Want::Ask(question)),
                Order::Promote(record) => self.promote(record, step),
                Order::Keep(_) => {}
                Order::End(_) => step.wants.push(Want::Exit),
            }
        }
        if self.engine.sender().is_none() {
            self.connection = None;
        }
    }

    /// Executes the rest of the log.
    fn promote(&mut self, record: Record, step: &mut Step<'_>) {
        let replica = self.replica.as_mut().expect("who takes over has a machine");
        let strayed = replica.strayed || replica.run(usize::MAX).is_err();
        if strayed {
            let went = replica.go_back();
            let went = went.and_then(|()| replica.run(usize::MAX).map_err(|error| error.to_string()));
            if let Err(error) = went {
                self.diverged = Some(error);
                step.wants.push(Want::Fail);
                return;
            }
            self.diverged = None;
            self.rotten = false;
        }
        if !replica.stopped {
            self.promoted = Some(record);
            step.wants.push(Want::Promote(record));
            return;
        }
        self.ending = true;
        let to = rules::end(Some(&record), self.id).expect("who has taken over may end the guest");
        step.wants.push(Want::Ask(Question::Replace { from: record, to }));
    }
}
