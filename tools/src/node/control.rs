//! How a node is asked and stopped: its control socket, and signals.

use std::{path::Path, time::Duration};

use echovisor_recorder::{Kept, primary};
use echovisor_replayer::{Spoil, secondary};
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    commands::snapshot::Taken,
    control::{Part, Refusal, Request, Server, serve},
    failure::Failure,
    node::report,
};

/// Commands that may wait for the node.
const COMMANDS: usize = 16;

/// How long an answer that is on its way when the node ends may take.
const LAST_ANSWER: Duration = Duration::from_millis(100);

/// Who answers, in the node's present role.
#[derive(Clone)]
pub enum Reach {
    /// The primary's loop; after a takeover with what it took.
    Primary(flume::Sender<primary::Command>, Option<report::Takeover>),
    /// The secondary's loop.
    Secondary(flume::Sender<secondary::Command>),
}

/// A node's control socket and signals; they stay while its role changes.
pub struct Controls {
    reach: watch::Sender<Reach>,
    server: Option<Server>,
}

impl Controls {
    /// Answers at `socket`, if one is given, and turns SIGINT and SIGTERM into a stop.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn new(socket: Option<&Path>, reach: Reach) -> Result<Controls, Failure> {
        let (reach, present) = watch::channel(reach);
        stop_on_signals(present.clone())?;
        let answer = move |request| answer(present.clone(), request);
        let server = socket.map(|path| serve(path, answer)).transpose()?;
        Ok(Controls { reach, server })
    }

    /// From now on somebody else answers.
    pub fn switch(&self, reach: Reach) {
        self.reach.send_replace(reach);
    }

    /// Lets an answer go out that is on its way, then closes the socket.
    pub async fn close(self) {
        if self.server.is_some() {
            tokio::time::sleep(LAST_ANSWER).await;
        }
    }
}

/// Where a primary's commands come from, and who sends them.
#[must_use]
pub fn primary_commands() -> (flume::Sender<primary::Command>, flume::Receiver<primary::Command>) {
    flume::bounded(COMMANDS)
}

/// Where a secondary's commands come from, and who sends them.
#[must_use]
pub fn secondary_commands() -> (flume::Sender<secondary::Command>, flume::Receiver<secondary::Command>) {
    flume::bounded(COMMANDS)
}

/// Has the node answer. While its role changes nobody does: who asks how it is waits for the new one, who wants something of
/// it must know what it is now.
async fn answer(mut present: watch::Receiver<Reach>, request: Request) -> Result<Value, Refusal> {
    loop {
        let reach = present.borrow_and_update().clone();
        match reach.answer(&request).await {
            Ok(answer) => return answer,
            Err(Gone) => match (present.changed().await, &request) {
                (Ok(()), Request::Status) => {}
                (Ok(()), _) => return Err(changed()),
                (Err(_), _) => return Err(ending()),
            },
        }
    }
}

/// Stops the node, whatever it is.
async fn stop(present: watch::Receiver<Reach>) {
    while answer(present.clone(), Request::Stop).await == Err(changed()) {}
}

/// The loop that was asked has ended without an answer.
struct Gone;

impl Reach {
    async fn answer(self, request: &Request) -> Result<Result<Value, Refusal>, Gone> {
        match (request, self) {
            (Request::Status, Reach::Primary(commands, takeover)) => {
                let (reply, status) = oneshot::channel();
                let status = ask(commands, primary::Command::Status(reply), status).await?;
                Ok(value(&report::of_primary(&status, takeover.as_ref())))
            }
            (Request::Stop, Reach::Primary(commands, _)) => {
                let (reply, stopped) = oneshot::channel();
                ask(commands, primary::Command::Stop(reply), stopped).await.map(|()| Ok(Value::Null))
            }
            (Request::Promote, Reach::Primary(commands, _)) => {
                let (reply, kept) = oneshot::channel();
                let kept = ask(commands, primary::Command::HandOver(reply), kept).await?;
                Ok(kept.map(|()| Value::Null).map_err(|why| not_switched(why.to_owned())))
            }
            (Request::Promote, Reach::Secondary(commands)) => {
                let (reply, promoted) = oneshot::channel();
                let promoted = ask(commands, secondary::Command::Promote(reply), promoted).await?;
                Ok(promoted.map(|()| Value::Null).map_err(not_switched))
            }
            (Request::Snapshot, Reach::Primary(commands, _)) => {
                let (reply, kept) = oneshot::channel();
                Ok(taken(ask(commands, primary::Command::Snapshot(reply), kept).await?))
            }
            (Request::Snapshot, Reach::Secondary(_)) => Ok(taken(Kept::Nowhere)),
            (Request::Status, Reach::Secondary(commands)) => {
                let (reply, status) = oneshot::channel();
                let status = ask(commands, secondary::Command::Status(reply), status).await?;
                Ok(value(&report::of_secondary(&status)))
            }
            (Request::Spoil { .. }, Reach::Primary(..)) => Ok(Err(Refusal {
                message: "a primary's machine is not made to fail".to_owned(),
                hint: "ask its secondary".to_owned(),
            })),
            (Request::Spoil { part, at, bit }, Reach::Secondary(commands)) => {
                let (at, bit) = (*at, *bit);
                let spoil = match part {
                    Part::Memory => Spoil::Memory { address: at, bit },
                    Part::Register => Spoil::Register { number: at as usize, bit },
                    Part::Device => Spoil::Device { bit },
                };
                let (reply, done) = oneshot::channel();
                let done = ask(commands, secondary::Command::Spoil(spoil, reply), done).await?;
                Ok(done.then_some(Value::Null).ok_or_else(|| Refusal {
                    message: "the secondary has no machine".to_owned(),
                    hint: "ask again when it follows its primary".to_owned(),
                }))
            }
            (Request::Stop, Reach::Secondary(commands)) => {
                let (reply, stopped) = oneshot::channel();
                ask(commands, secondary::Command::Stop(reply), stopped).await.map(|()| Ok(Value::Null))
            }
        }
    }
}

async fn ask<C, T>(commands: flume::Sender<C>, command: C, answer: oneshot::Receiver<T>) -> Result<T, Gone> {
    commands.send_async(command).await.map_err(|_| Gone)?;
    // What nobody will receive goes with the last sender.
    drop(commands);
    answer.await.map_err(|_| Gone)
}

fn ending() -> Refusal {
    Refusal { message: "the node is ending".to_owned(), hint: "see what it says on its stderr".to_owned() }
}

fn not_switched(why: String) -> Refusal {
    Refusal {
        message: format!("the roles stay as they are: {why}"),
        hint: "wait until `echovisor status` says that the guest is protected, and ask again".to_owned(),
    }
}

fn changed() -> Refusal {
    Refusal {
        message: "the node's role has changed meanwhile".to_owned(),
        hint: "see with `echovisor status` what it is now, and ask again".to_owned(),
    }
}

/// Where a snapshot was taken, or why there is none.
fn taken(kept: Kept) -> Result<Value, Refusal> {
    let (message, hint) = match kept {
        Kept::Written(position) => return value(&Taken { position: position.0 }),
        Kept::Failed => ("the snapshot could not be written", "see what the node says on its stderr"),
        Kept::Nowhere => ("this node keeps no snapshots", "ask one that was started with --out or --store"),
    };
    Err(Refusal { message: message.to_owned(), hint: hint.to_owned() })
}

fn value(status: &impl serde::Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(status).map_err(|error| Refusal {
        message: format!("the status cannot be written as JSON: {error}"),
        hint: "this should not happen: please report it".to_owned(),
    })
}

/// The first SIGINT or SIGTERM stops the guest in order; a second one ends the process.
fn stop_on_signals(present: watch::Receiver<Reach>) -> Result<(), Failure> {
    let failed =
        |error| Failure::new("cannot watch signals", "see whether `ulimit -n` is reached").because(error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if last {
                std::process::exit(1);
            }
            tracing::info!("stopping; once more to end at once");
            tokio::spawn(stop(present.clone()));
        }
    });
    Ok(())
}
