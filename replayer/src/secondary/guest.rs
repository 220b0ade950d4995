//! The replaying thread: loads the state, then follows the log.

use std::{convert::Infallible, sync::Arc, thread, time::Instant};

use echovisor_event::Nanos;
use echovisor_log::{Batch, link::ImageBegin};
use echovisor_machine::{
    Machine, MachineConfig, Memory,
    cpu::{Cpu, CpuError},
};
use echovisor_snapshot::Image;
use tokio::sync::oneshot;

use crate::{Arrived, FollowError, Follower, Incoming, Progress, Reached, Replay, Unconfirmed};

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

/// A guest that has followed its log to the end.
pub struct Followed<C> {
    /// Where it stands.
    pub machine: Machine<C>,
    /// What it has done that the primary has not confirmed.
    pub unconfirmed: Unconfirmed,
    /// The last time in the log, and when it came in.
    pub clock: (Nanos, Instant),
    /// How the log ended.
    pub reached: Reached,
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
    /// The end of following.
    pub(super) ended: oneshot::Receiver<Result<Followed<C>, FollowError<Infallible>>>,
}

impl<C: Cpu + Send + 'static> Guest<C> {
    /// Starts a thread that loads the state which `begin` announced and `bytes` hold, then follows.
    pub(super) fn start(
        begin: ImageBegin,
        bytes: Vec<u8>,
        progress: Arc<Progress>,
        cpu: MakeCpu<C>,
    ) -> std::io::Result<Guest<C>> {
        let (sender, batches) = flume::bounded(DEPTH);
        let (used, spare) = flume::bounded(SPARE);
        let (tell_loaded, loaded) = oneshot::channel();
        let (tell_end, ended) = oneshot::channel();
        let incoming = Incoming { batches, spare: used };
        let told = progress.clone();
        thread::Builder::new().name("vcpu".into()).spawn(move || {
            let machine = match load(&begin, &bytes, cpu) {
                Ok((machine, loaded)) => {
                    let _ = tell_loaded.send(Ok(loaded));
                    machine
                }
                Err(error) => {
                    let _ = tell_loaded.send(Err(error));
                    return;
                }
            };
            drop(bytes);
            let _ = tell_end.send(follow(machine, incoming, told));
        })?;
        Ok(Guest { batches: sender, spare, progress, loaded: Some(loaded), ended })
    }
}

fn load<C: Cpu>(begin: &ImageBegin, bytes: &[u8], cpu: MakeCpu<C>) -> Result<(Machine<C>, Loaded), String> {
    let config = MachineConfig::from_bytes(&begin.config).map_err(|error| error.to_string())?;
    let image = Image::from_bytes(bytes).map_err(|error| error.to_string())?;
    if image.digest != begin.digest || image.position() != begin.position {
        return Err("the state is not the one that was announced".into());
    }
    // Filling the memory computes the digest of what was loaded, and compares it with the image's.
    let machine = image.restore(&config, cpu).map_err(|error| error.to_string())?;
    Ok((machine, Loaded { config }))
}

fn follow<C: Cpu>(
    machine: Machine<C>,
    incoming: Incoming,
    progress: Arc<Progress>,
) -> Result<Followed<C>, FollowError<Infallible>> {
    let replay = Replay::new(incoming, Unconfirmed::default(), true, progress);
    let mut follower = Follower::new(machine, replay).in_lockstep();
    let reached = follower.run(None)?;
    let (machine, unconfirmed, clock) = follower.into_parts();
    Ok(Followed { machine, unconfirmed, clock, reached })
}
