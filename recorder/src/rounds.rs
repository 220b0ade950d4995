//! What leads to a checkpoint: rounds in which pages are read while the guest runs, so that few are left for the boundary at
//! which it stands still.

use std::time::{Duration, Instant};

use echovisor_event::Digest;
use echovisor_machine::{
    Consumer, Machine, Memory, PageSet,
    cpu::{Cpu, CpuError},
};
use echovisor_snapshot::{Capture, Precopy, RunningDigest};

/// So few changed pages are read while the guest stands still: another round would cost it as much.
const FEW: usize = 64;

/// Rounds after which the rest is read however much it is.
const ROUNDS_MAX: u32 = 5;

/// Pages for which a capture has memory at hand when the guest stands still.
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
    pub capture: Capture,
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
    /// Copying those that a capture lacked.
    pub copy: Duration,
    /// Hashing those that the digest lacked, and what depends on them.
    pub hash: Duration,
    /// Reading processor and devices.
    pub state: Duration,
    /// Pages that had changed since the last round.
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

/// A checkpoint that is being prepared.
pub(crate) struct Round {
    memory: Memory,
    digest: RunningDigest,
    /// Pages that the digest lacks.
    stale: PageSet,
    copying: Option<Copying>,
    /// How many rounds there have been.
    number: u32,
}

/// A capture that is being prepared.
struct Copying {
    purpose: Purpose,
    consumer: Consumer,
    precopy: Precopy,
    /// Pages that it lacks.
    pages: PageSet,
}

/// What is left of a round.
pub(crate) struct Finished {
    pub(crate) digest: RunningDigest,
    pub(crate) state_digest: Digest,
    pub(crate) captured: Option<Captured>,
    /// Who will ask for the next snapshot's pages.
    pub(crate) keeper: Option<Consumer>,
}

impl Round {
    /// Begins with the machine as it stands. A snapshot holds what has changed since its `keeper` asked last; without one, and
    /// for a join, it holds everything.
    pub(crate) fn begin<C: Cpu>(
        machine: &mut Machine<C>,
        digest: Option<RunningDigest>,
        purpose: Option<Purpose>,
        keeper: &mut Option<Consumer>,
    ) -> Result<Round, CpuError> {
        let mut digest = digest.map_or_else(|| RunningDigest::new(machine), Ok)?;
        let consumer = purpose.map(|purpose| {
            let keeper = keeper.take_if(|_| purpose == Purpose::Snapshot);
            let complete = keeper.is_none();
            keeper.map_or_else(|| machine.track_pages(), Ok).map(|consumer| (purpose, consumer, complete))
        });
        let consumer = consumer.transpose()?;
        machine.harvest()?;
        let memory = machine.memory().clone();
        let copying = consumer.map(|(purpose, consumer, complete)| {
            let pages = machine.harvested(&consumer);
            Copying { purpose, consumer, precopy: Precopy::new(&memory, complete), pages }
        });
        let stale = digest.begin(machine);
        Ok(Round { memory, digest, stale, copying, number: 0 })
    }

    /// Reads the pages that are lacking.
    pub(crate) fn run(&mut self) {
        self.number += 1;
        if let Some(Copying { precopy, pages, .. }) = &mut self.copying {
            precopy.copy(pages);
            precopy.reserve(RESERVE);
        }
        self.digest.rehash(&self.memory, &self.stale);
    }

    /// Looks what has changed while the pages were read. Whether so few that the rest is better read at once, or that
    /// another round would not help.
    pub(crate) fn is_near<C: Cpu>(
        &mut self,
        machine: &mut Machine<C>,
        pause: &mut Pause,
    ) -> Result<bool, CpuError> {
        let begun = Instant::now();
        let before = self.stale.len();
        machine.harvest()?;
        self.stale = self.digest.changed(machine);
        if let Some(Copying { consumer, pages, .. }) = &mut self.copying {
            *pages = machine.harvested(consumer);
        }
        pause.pages = self.stale.len();
        pause.rounds = self.number;
        pause.harvest = begun.elapsed();
        Ok(pause.pages <= FEW || pause.pages > before / 2 || self.number >= ROUNDS_MAX)
    }

    /// Reads what is still lacking, of a machine that stands still since [`Round::is_near`].
    pub(crate) fn finish<C: Cpu>(
        self,
        machine: &mut Machine<C>,
        mut pause: Pause,
    ) -> Result<Finished, CpuError> {
        let Round { memory, mut digest, stale, mut copying, .. } = self;
        let begun = Instant::now();
        let state = machine.save()?;
        let saved = Instant::now();
        if let Some(Copying { precopy, pages, .. }) = &mut copying {
            precopy.copy(pages);
        }
        let copied = Instant::now();
        digest.rehash(&memory, &stale);
        let state_digest = digest.finish(&state);
        pause.state = saved - begun;
        pause.copy = copied - saved;
        pause.hash = copied.elapsed();
        let (mut captured, mut keeper) = (None, None);
        if let Some(Copying { purpose, consumer, precopy, .. }) = copying {
            match purpose {
                Purpose::Join => machine.untrack_pages(consumer),
                Purpose::Snapshot => keeper = Some(consumer),
            }
            captured = Some(Captured { purpose, capture: precopy.finish(state, state_digest), pause });
        }
        Ok(Finished { digest, state_digest, captured, keeper })
    }
}
