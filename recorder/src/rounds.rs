//! What leads to a checkpoint: rounds in which pages are read while the guest runs, so that few are left for the boundary at
//! which it stands still. These are copied there, and hashed when it runs on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use echovisor_event::{Digest, Position};
use echovisor_machine::{
    Consumer, Machine, Memory, PageSet,
    cpu::{Cpu, CpuError},
};
use echovisor_snapshot::{Capture, Precopy, RunningDigest};
use rustix::time::{ClockId, clock_gettime};

/// So few changed pages are copied while the guest stands still: another round would cost it as much.
const FEW: usize = 64;

/// Rounds after which the rest is copied however much it is.
const ROUNDS_MAX: u32 = 5;

/// So many changed pages are copied in a round, and hashed when the checkpoint is made: a round that only copies takes a tenth of the
/// time, and the guest writes to fewer pages meanwhile.
const COPIED_MAX: usize = 4096;

/// Pages for which there is memory at hand when the guest stands still.
const RESERVE: usize = 512;

/// Who a capture is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A secondary that lacks the state: all of it.
    Join,
    /// Who keeps snapshots: all of it for the first time, then what has changed since the last one.
    Snapshot,
}

/// A capture, whose it is, and what it has cost.
#[derive(Debug)]
pub struct Captured {
    /// Who it is for.
    pub purpose: Purpose,
    /// The state.
    pub capture: Arc<Capture>,
    /// How long the guest stood still for it.
    pub pause: Pause,
}

/// How long a guest stood still for a checkpoint, and what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Completing the instruction that it stands behind.
    pub complete: Duration,
    /// Reading which pages have changed.
    pub harvest: Duration,
    /// Copying those that had changed since the last round.
    pub copy: Duration,
    /// Hashing them, where it could not wait until the guest runs on.
    pub hash: Duration,
    /// Reading processor and devices.
    pub state: Duration,
    /// Of harvest, copy and state: how long the guest's thread had a core. The rest it waited for one.
    pub ran: Duration,
    /// How many these were.
    pub pages: usize,
    /// Rounds before.
    pub rounds: u32,
}

impl Pause {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.complete + self.harvest + self.copy + self.hash + self.state
    }
}

/// What the reader's thread does while the guest runs.
pub(crate) enum Reading {
    /// A round that leads to a checkpoint.
    Round(Round),
    /// The digest of the last checkpoint.
    Digest(Undigested),
}

impl Reading {
    pub(crate) fn run(&mut self) {
        match self {
            Reading::Round(round) => round.run(),
            Reading::Digest(checkpoint) => checkpoint.run(),
        }
    }
}

/// What is kept from one checkpoint to the next.
pub(crate) struct Account {
    running: RunningDigest,
    /// Memory for copies.
    spare: Option<Precopy>,
}

impl Account {
    pub(crate) fn new<C: Cpu>(machine: &mut Machine<C>) -> Result<Account, CpuError> {
        Ok(Account { running: RunningDigest::new(machine)?, spare: None })
    }

    /// The digest of the machine's state, all at once.
    pub(crate) fn take<C: Cpu>(&mut self, machine: &mut Machine<C>) -> Result<Digest, CpuError> {
        self.running.take(machine)
    }
}

/// A checkpoint that is being prepared.
pub(crate) struct Round {
    memory: Memory,
    account: Account,
    /// Pages that have changed since they were read.
    stale: PageSet,
    /// Pages that were copied and not hashed.
    copied: PageSet,
    /// What is captured; without a capture, only these copies.
    precopy: Precopy,
    capturing: Option<Capturing>,
    /// How many rounds there have been.
    number: u32,
}

/// A capture that is being prepared.
struct Capturing {
    purpose: Purpose,
    consumer: Consumer,
    /// Pages that it lacks. Behind the first round they are the same as for the digest.
    pages: PageSet,
}

/// A checkpoint that was made, and whose digest is not known yet.
pub(crate) struct Undigested {
    memory: Memory,
    account: Account,
    /// Pages that the digest lacks: those that changed during the last round, and those that were only copied before.
    stale: PageSet,
    copied: PageSet,
    /// The state there, with these pages.
    capture: Arc<Capture>,
    digest: Digest,
}

/// What is left of a round.
pub(crate) struct Finished {
    pub(crate) checkpoint: Undigested,
    pub(crate) captured: Option<Captured>,
    /// Who will ask for the next snapshot's pages.
    pub(crate) keeper: Option<Consumer>,
}

impl Round {
    /// Begins with the machine as it stands. A snapshot holds what has changed since its `keeper` asked last; without one, and
    /// for a join, it holds everything.
    pub(crate) fn begin<C: Cpu>(
        machine: &mut Machine<C>,
        account: Option<Account>,
        purpose: Option<Purpose>,
        keeper: &mut Option<Consumer>,
    ) -> Result<Round, CpuError> {
        let mut account = account.map_or_else(|| Account::new(machine), Ok)?;
        let consumer = purpose.map(|purpose| {
            let keeper = keeper.take_if(|_| purpose == Purpose::Snapshot);
            let complete = keeper.is_none();
            keeper.map_or_else(|| machine.track_pages(), Ok).map(|consumer| (purpose, consumer, complete))
        });
        let consumer = consumer.transpose()?;
        machine.harvest()?;
        let memory = machine.memory().clone();
        let (stale, copied) = (account.running.begin(machine), PageSet::none(memory.pages()));
        let (precopy, capturing) = match consumer {
            Some((purpose, consumer, complete)) => {
                let pages = machine.harvested(&consumer);
                (Precopy::new(&memory, complete), Some(Capturing { purpose, consumer, pages }))
            }
            None => (account.spare.take().unwrap_or_else(|| Precopy::new(&memory, false)), None),
        };
        Ok(Round { memory, account, stale, copied, precopy, capturing, number: 0 })
    }

    /// Reads the pages that are lacking.
    pub(crate) fn run(&mut self) {
        self.number += 1;
        let hashes = self.number == 1 || (self.copied.is_empty() && self.stale.len() > COPIED_MAX);
        match &self.capturing {
            Some(Capturing { pages, .. }) => self.precopy.copy(pages),
            None if hashes => {}
            None => self.precopy.copy(&self.stale),
        }
        if hashes {
            self.account.running.rehash(&self.memory, &self.stale);
        } else {
            self.copied.unite(&self.stale);
        }
        self.precopy.reserve(RESERVE);
    }

    /// Looks what has changed while the pages were read. Whether so few that the rest is better copied at once, or that
    /// another round would not help.
    pub(crate) fn is_near<C: Cpu>(
        &mut self,
        machine: &mut Machine<C>,
        pause: &mut Pause,
    ) -> Result<bool, CpuError> {
        let (begun, ran) = (Instant::now(), thread_time());
        let before = self.stale.len();
        machine.harvest()?;
        self.stale = self.account.running.changed(machine);
        if let Some(Capturing { consumer, pages, .. }) = &mut self.capturing {
            *pages = machine.harvested(consumer);
        }
        pause.pages = self.stale.len();
        pause.rounds = self.number;
        pause.harvest = begun.elapsed();
        pause.ran = thread_time().saturating_sub(ran);
        Ok(pause.pages <= FEW || pause.pages > before / 2 || self.number >= ROUNDS_MAX)
    }

    /// Copies what is still lacking, of a machine that stands still since [`Round::is_near`].
    pub(crate) fn finish<C: Cpu>(
        self,
        machine: &mut Machine<C>,
        mut pause: Pause,
    ) -> Result<Finished, CpuError> {
        let Round { memory, account, stale, copied, mut precopy, capturing, .. } = self;
        let (begun, ran) = (Instant::now(), thread_time());
        let state = machine.save()?;
        let saved = Instant::now();
        precopy.copy(capturing.as_ref().map_or(&stale, |capturing| &capturing.pages));
        pause.state = saved - begun;
        pause.copy = saved.elapsed();
        pause.ran += thread_time().saturating_sub(ran);
        let capture = Arc::new(precopy.finish(state));
        let (mut captured, mut keeper) = (None, None);
        if let Some(Capturing { purpose, consumer, .. }) = capturing {
            match purpose {
                Purpose::Join => machine.untrack_pages(consumer),
                Purpose::Snapshot => keeper = Some(consumer),
            }
            captured = Some(Captured { purpose, capture: capture.clone(), pause });
        }
        let checkpoint = Undigested { memory, account, stale, copied, capture, digest: Digest::default() };
        Ok(Finished { checkpoint, captured, keeper })
    }
}

/// For how long this thread has had a core.
fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

impl Undigested {
    /// Hashes what is still lacking.
    pub(crate) fn run(&mut self) {
        let Undigested { account: Account { running, .. }, capture, .. } = self;
        self.stale.unite(&self.copied);
        running.rehash_held(capture, &self.stale);
        self.digest = running.finish(capture.state());
    }

    /// The checkpoint with its digest, behind [`Undigested::run`]; and what is kept for the next one.
    pub(crate) fn finish(self) -> (Position, Digest, Account) {
        let Undigested { memory, mut account, capture, digest, .. } = self;
        let position = capture.position();
        let unused = Arc::into_inner(capture).filter(|_| account.spare.is_none());
        account.spare = account.spare.or(unused.and_then(|capture| Precopy::in_place_of(capture, &memory)));
        (position, digest, account)
    }
}
