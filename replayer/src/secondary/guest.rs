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
use echovisor_log::Batch;
use echovisor_machine::{
    ConfigError, Machine, MachineConfig, MachineState, Memory, RestoreError, StateError,
    cpu::{Cpu, CpuError},
    devices::DevicesConfig,
};
use tokio::sync::oneshot;

use super::syncing::Fetched;
use crate::{Arrived, FollowError, Follower, Incoming, Progress, Reached, Replay, Spoil, Unconfirmed};

/// Batches that may wait for the replaying thread; when there are more, the link waits, and the primary with it.
const DEPTH: usize = 8192;

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

/// The replaying thread, seen from the node.
pub(super) struct Guest<C> {
    /// Where its log comes from; dropping this ends the log.
    pub(super) batches: flume::Sender<Arrived>,
    /// Batches to be filled again.
    pub(super) spare: flume::Receiver<Batch>,
    /// How far it is.
    pub(super) progress: Arc<Progress>,
    /// The end of loading.
    pub(super) loaded: Option<oneshot::Receiver<Result<Loaded, String>>>,
    /// It has left the log's course, but goes on.
    pub(super) strayed: flume::Receiver<String>,
    /// The engine knows of that.
    pub(super) told: bool,
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
        let (sender, batches) = flume::bounded(DEPTH);
        let (used, spare) = flume::bounded(SPARE);
        let (tell_loaded, loaded) = oneshot::channel();
        let (stray, strayed) = flume::bounded(1);
        let (tell_end, ended) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let incoming = Incoming { batches, spare: used, given_up: given_up.clone() };
        let (spoils, spoilt) = flume::bounded(SPARE);
        let told = progress.clone();
        thread::Builder::new().name("vcpu".into()).spawn(move || {
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
            let _ = tell_end.send(follow(machine, incoming, told, stray, (spoilt, devices)));
        })?;
        Ok(Guest {
            batches: sender,
            spare,
            progress,
            loaded: Some(loaded),
            strayed,
            told: false,
            spoils,
            ended,
            given_up,
        })
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

fn follow<C: Cpu>(
    machine: Machine<C>,
    incoming: Incoming,
    progress: Arc<Progress>,
    stray: flume::Sender<String>,
    (spoils, devices): (flume::Receiver<Spoil>, DevicesConfig),
) -> Followed<C> {
    let replay = Replay::new(incoming, Unconfirmed::default(), true, progress);
    let mut follower = Follower::new(machine, replay).in_lockstep().spoilt_by(spoils, devices);
    let reached = follower.run(None);
    if let Err(error @ FollowError::Digest { .. }) = &reached {
        // It goes on to where the primary's next state is taken, and can be compared there: the log may be enough to run on,
        // and how far it goes then matters to nobody.
        let _ = stray.send(error.to_string());
        follower.tolerate();
        let _ = follower.run(None);
    }
    let (machine, unconfirmed, clock) = follower.into_parts();
    Followed { machine, unconfirmed, clock, reached }
}
