//! The replaying thread: makes a machine of a state, then follows the log.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use echovisor_event::{Digest, Nanos};
use echovisor_log::Pool;
use echovisor_machine::{
    ConfigError, Machine, MachineConfig, MachineState, Memory, RestoreError, StateError,
    cpu::{Cpu, CpuError},
    devices::DevicesConfig,
};
use tokio::sync::oneshot;

use super::syncing::Fetched;
use crate::{
    Arrived, Fed, FollowError, Follower, History, Incoming, Progress, Reached, Replay, Rewindable, Spoil,
    Unconfirmed,
};

/// Batches that may wait for the replaying thread; when there are more, the link waits, and the primary with it.
const DEPTH: usize = 8192;

/// Room beside them for telling the thread to go back, and for what it tells of that: a few times while the link is lost, and once as
/// the guest goes live. And for the faults that tests make.
const ORDERS: usize = 16;

/// Batches that are kept to be filled again.
const SPARE: usize = 64;

/// Makes the processor of a loaded guest.
pub type MakeCpu<C> = fn(&Memory) -> Result<C, CpuError>;

/// What became of loading the state.
pub(super) struct Loaded {
    /// The machine's configuration.
    pub config: MachineConfig,
}

/// A guest that has followed its log to the end, or as far as it could.
pub struct Followed<C> {
    /// Where it stands.
    pub machine: Machine<C>,
    /// What it has done that the primary has not confirmed.
    pub unconfirmed: Unconfirmed,
    /// The last time in the log, and when it came in.
    pub clock: (Nanos, Instant),
    /// How the log ended, or how the guest left its course; then its state is of no use but to be compared.
    pub reached: Result<Reached, FollowError<Infallible>>,
}

/// What the replaying thread tells of its course.
pub(super) enum News {
    /// It has left the log's course.
    Strayed(String),
    /// It has gone back and executed again what there was of the log; or it cannot, and why.
    WentBack(Result<(), String>),
}

/// The replaying thread, seen from the node.
pub(super) struct Guest<C> {
    /// Where its log comes from; dropping this ends the log.
    fed: flume::Sender<Fed>,
    /// Batches to be filled again.
    pub(super) spare: Pool,
    /// How far it is.
    pub(super) progress: Arc<Progress>,
    /// The end of loading.
    pub(super) loaded: Option<oneshot::Receiver<Result<Loaded, String>>>,
    /// What it tells of its course.
    pub(super) news: flume::Receiver<News>,
    /// The end of following.
    pub(super) ended: oneshot::Receiver<Followed<C>>,
    /// Faults to be made, for tests.
    pub(super) spoils: flume::Sender<Spoil>,
    given_up: Arc<AtomicBool>,
}

impl<C: Cpu + Send + 'static> Guest<C> {
    /// Starts a thread that makes a machine of a state, then follows.
    pub(super) fn start(
        fetched: Box<Fetched>,
        progress: Arc<Progress>,
        cpu: MakeCpu<C>,
    ) -> std::io::Result<Guest<C>> {
        let (sender, fed) = flume::bounded(DEPTH + ORDERS);
        let spare = Pool::new(SPARE);
        let (tell_loaded, loaded) = oneshot::channel();
        let (tell_news, news) = flume::bounded(ORDERS);
        let (tell_end, ended) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let incoming = Incoming { fed, spare: spare.clone(), given_up: given_up.clone(), told: false };
        let (spoils, spoilt) = flume::bounded(ORDERS);
        let told = progress.clone();
        thread::Builder::new().name("vcpu".into()).spawn(move || {
            let digest = fetched.begin.digest;
            let (machine, devices) = match make(*fetched, cpu) {
                Ok((machine, config)) => {
                    let devices = config.devices();
                    let _ = tell_loaded.send(Ok(Loaded { config }));
                    (machine, devices)
                }
                Err(error) => {
                    let _ = tell_loaded.send(Err(error.to_string()));
                    return;
                }
            };
            let replay = Replay::new(Rewindable::new(incoming), Unconfirmed::default(), true, told);
            let follower = Follower::new(machine, replay).in_lockstep().spoilt_by(spoilt);
            match follower.keeping_verified(digest) {
                Ok(follower) => drop(tell_end.send(follow(follower, cpu, &devices, &tell_news))),
                Err(error) => tracing::error!("the guest cannot be followed: {error}"),
            }
        })?;
        Ok(Guest { fed: sender, spare, progress, loaded: Some(loaded), news, spoils, ended, given_up })
    }

    /// Whether no more batches may wait.
    pub(super) fn is_full(&self) -> bool {
        self.fed.len() >= DEPTH
    }

    /// The next batch.
    pub(super) fn append(&self, arrived: Arrived) {
        // A thread that has ended says why elsewhere.
        let _ = self.fed.try_send(Fed::Batch(arrived));
    }

    /// Lets it go back to its last verified state, and execute again what there is of the log, if it has left the log's course.
    pub(super) fn go_back(&self) {
        let _ = self.fed.try_send(Fed::GoBack);
    }

    /// Ends the log behind what there is of it, for the guest to go live.
    pub(super) fn finish(self) -> oneshot::Receiver<Followed<C>> {
        self.go_back();
        self.ended
    }

    /// Ends the log: at once if it is given up, else behind what there is of it. The machine comes from the receiver.
    pub(super) fn retire(self, given_up: bool) -> oneshot::Receiver<Followed<C>> {
        self.given_up.store(given_up, Ordering::Relaxed);
        self.ended
    }
}

/// Why no machine can be made of a state that was fetched.
#[derive(Debug, thiserror::Error)]
pub enum Unmade {
    /// The configuration is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state besides RAM is none.
    #[error(transparent)]
    State(#[from] StateError),
    /// The memory is of another size than the configuration's.
    #[error("the state has {found} bytes of memory, its machine {expected}")]
    Memory {
        /// The configuration's.
        expected: u64,
        /// The state's.
        found: u64,
    },
    /// The state is another one than was announced.
    #[error("the state has digest {found}, announced was {expected}")]
    Digest {
        /// As announced.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
    /// The host gives no processor.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The machine refuses the state.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Makes a machine of a state, once it is proved to be the one that was announced.
///
/// # Errors
/// If it is not, or if it is no machine's.
pub fn make<C: Cpu>(
    fetched: Fetched,
    cpu: impl FnOnce(&Memory) -> Result<C, CpuError>,
) -> Result<(Machine<C>, MachineConfig), Unmade> {
    let Fetched { begin, base } = fetched;
    let config = MachineConfig::from_bytes(&begin.config)?;
    if config.memory != base.memory.size() {
        return Err(Unmade::Memory { expected: config.memory, found: base.memory.size() });
    }
    let state = MachineState::from_bytes(&begin.state)?;
    let found = base.digests.state_digest(&state);
    if found != begin.digest || state.position != begin.position {
        return Err(Unmade::Digest { expected: begin.digest, found });
    }
    let cpu = cpu(&base.memory)?;
    Ok((Machine::restore(cpu, base.memory, &config.devices(), &state)?, config))
}

/// Follows the log to its end. A machine that leaves its course is not looked at any more, unless it is told to go back.
fn follow<C: Cpu>(
    mut follower: Follower<C, Rewindable<Incoming>, Unconfirmed>,
    cpu: MakeCpu<C>,
    devices: &DevicesConfig,
    news: &flume::Sender<News>,
) -> Followed<C> {
    let reached = loop {
        let reached = follower.run(None);
        let history = follower.history();
        match &reached {
            Ok(Reached::LogEnds) if history.take_rewound() => {
                let _ = news.send(News::WentBack(Ok(())));
                continue;
            }
            // There is nothing to go back for.
            Ok(Reached::LogEnds) if std::mem::take(&mut history.inner().told) => continue,
            Ok(_) => break reached,
            Err(error) => drop(news.send(News::Strayed(error.to_string()))),
        }
        if let Err(FollowError::Digest { .. }) = &reached {
            // It goes on to where the primary's next state is taken, and can be compared there: the log may be enough to run
            // on, and how far it goes then matters to nobody.
            follower.tolerate();
            let _ = follower.run(None);
        }
        if !is_told_to_go_back(follower.history()) {
            break reached;
        }
        match follower.roll_back(cpu, devices) {
            Ok(to) => tracing::warn!("went back to the verified state at position {to}"),
            Err(error) => {
                tracing::error!("no way back: {error}");
                let _ = news.send(News::WentBack(Err(error.to_string())));
                break reached;
            }
        }
    };
    let (machine, unconfirmed, clock) = follower.into_parts();
    Followed { machine, unconfirmed, clock, reached }
}

/// Keeps the log that comes until this thread is told to go back, or the log ends.
fn is_told_to_go_back(history: &mut Rewindable<Incoming>) -> bool {
    while !history.inner().told {
        match history.next() {
            Ok(Some(arrived)) => history.recycle(arrived.batch),
            Ok(None) if history.inner().told => {}
            Ok(None) => return false,
            Err(never) => match never {},
        }
    }
    history.inner().told = false;
    true
}
