//! What a secondary hands to the recorder when it becomes the primary.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use echovisor_event::Nanos;
use echovisor_log::arbiter::{Arbiter, ArbiterError, CasOutcome, Record, rules};
use echovisor_machine::{Machine, MachineConfig};

use crate::Unconfirmed;

/// How long to wait before an arbiter that gave no answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A guest that goes live.
pub struct Promotion<C> {
    /// At a boundary, behind everything in the log.
    pub machine: Machine<C>,
    /// What it is made of.
    pub config: MachineConfig,
    /// The record under which this node runs it.
    pub record: Record,
    /// What must be sent again.
    pub unconfirmed: Unconfirmed,
    /// The last time in the log, and when it came in.
    pub clock: (Nanos, Instant),
    /// How long it took.
    pub times: Times,
}

/// What a takeover is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// From the last message of the primary to the suspicion that it is dead.
    pub suspicion: Duration,
    /// To the arbiter's answer.
    pub arbiter: Duration,
    /// To the end of the log.
    pub replay: Duration,
}

/// Asks the arbiter for the guest until the answer is certain. The answer comes through the channel: the new record, or
/// `None` if another node has the guest.
pub(super) fn ask(
    arbiter: Arc<dyn Arbiter>,
    me: echovisor_event::NodeId,
    answers: flume::Sender<Option<Record>>,
) {
    tokio::task::spawn_blocking(move || {
        let mut wanted = None;
        loop {
            match attempt(&*arbiter, me, &mut wanted) {
                Ok(answer) => {
                    // Nobody to hear it means that the node is ending.
                    let _ = answers.send(answer);
                    return;
                }
                Err(error) => {
                    tracing::error!("no answer from the arbiter, the guest waits: {error}");
                    std::thread::sleep(ASK_AGAIN);
                }
            }
        }
    });
}

/// One attempt. `wanted` is the record of an earlier one of which no answer came, and which may have succeeded.
fn attempt(
    arbiter: &dyn Arbiter,
    me: echovisor_event::NodeId,
    wanted: &mut Option<Record>,
) -> Result<Option<Record>, ArbiterError> {
    let present = arbiter.read()?;
    if present.is_some() && present == *wanted {
        return Ok(present);
    }
    let new = match rules::take_over(present.as_ref(), me) {
        Ok(new) => new,
        Err(refusal) => {
            tracing::warn!("no takeover: {refusal}");
            return Ok(None);
        }
    };
    *wanted = Some(new);
    match arbiter.compare_and_set(present.as_ref(), &new)? {
        CasOutcome::Won => Ok(Some(new)),
        CasOutcome::Lost(_) => Ok(None),
    }
}
