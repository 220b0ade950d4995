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

/// What the arbiter says.
pub(super) enum Answer {
    /// This node has the guest, as this record says.
    Won(Record),
    /// Another node has it, or none may.
    Lost,
    /// The guest was shut down on purpose.
    Ended,
}

/// Asks the arbiter for the guest until the answer is certain. The answer comes through the channel.
pub(super) fn ask(arbiter: Arc<dyn Arbiter>, me: echovisor_event::NodeId, answers: flume::Sender<Answer>) {
    tokio::task::spawn_blocking(move || {
        let mut wanted = None;
        // Nobody to hear the answer means that the node is ending.
        while !answers.is_disconnected() {
            match attempt(&*arbiter, me, &mut wanted) {
                Ok(answer) => {
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
) -> Result<Answer, ArbiterError> {
    loop {
        let present = arbiter.read()?;
        if let Some(present) = present.filter(|present| Some(*present) == *wanted) {
            return Ok(Answer::Won(present));
        }
        let new = match rules::take_over(present.as_ref(), me) {
            Ok(new) => new,
            Err(refusal) => {
                tracing::warn!("no takeover: {refusal}");
                let ended = matches!(refusal, rules::RuleError::Ended { .. });
                return Ok(if ended { Answer::Ended } else { Answer::Lost });
            }
        };
        *wanted = Some(new);
        // Who was faster decides what the rules say now.
        if let CasOutcome::Won = arbiter.compare_and_set(present.as_ref(), &new)? {
            return Ok(Answer::Won(new));
        }
    }
}
