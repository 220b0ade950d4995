//! How a node is asked and stopped: its control socket, and signals.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use echovisor_recorder::primary;
use echovisor_replayer::secondary;
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    control::{Refusal, Request, Server, serve},
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
    reach: Arc<Mutex<Reach>>,
    server: Option<Server>,
}

impl Controls {
    /// Answers at `socket`, if one is given, and turns SIGINT and SIGTERM into a stop.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn new(socket: Option<&Path>, reach: Reach) -> Result<Controls, Failure> {
        let reach = Arc::new(Mutex::new(reach));
        stop_on_signals(reach.clone())?;
        let asked = reach.clone();
        let answer = move |request| {
            let reach = present(&asked);
            async move { reach.answer(request).await }
        };
        let server = socket.map(|path| serve(path, answer)).transpose()?;
        Ok(Controls { reach, server })
    }

    /// From now on somebody else answers.
    pub fn switch(&self, reach: Reach) {
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner) = reach;
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

fn present(reach: &Mutex<Reach>) -> Reach {
    reach.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Reach {
    async fn answer(self, request: Request) -> Result<Value, Refusal> {
        match (request, self) {
            (Request::Status, Reach::Primary(commands, takeover)) => {
                let (reply, status) = oneshot::channel();
                let status = ask(&commands, primary::Command::Status(reply), status).await?;
                value(&report::of_primary(&status, takeover.as_ref()))
            }
            (Request::Stop, Reach::Primary(commands, _)) => {
                let (reply, stopped) = oneshot::channel();
                ask(&commands, primary::Command::Stop(reply), stopped).await.map(|()| Value::Null)
            }
            (Request::Status, Reach::Secondary(commands)) => {
                let (reply, status) = oneshot::channel();
                let status = ask(&commands, secondary::Command::Status(reply), status).await?;
                value(&report::of_secondary(&status))
            }
            (Request::Stop, Reach::Secondary(commands)) => {
                let (reply, stopped) = oneshot::channel();
                ask(&commands, secondary::Command::Stop(reply), stopped).await.map(|()| Value::Null)
            }
        }
    }
}

async fn ask<C, T>(
    commands: &flume::Sender<C>,
    command: C,
    answer: oneshot::Receiver<T>,
) -> Result<T, Refusal> {
    let ending = || Refusal {
        message: "the node is ending".to_owned(),
        hint: "see what it says on its stderr".to_owned(),
    };
    commands.send_async(command).await.map_err(|_| ending())?;
    answer.await.map_err(|_| ending())
}

fn value(status: &impl serde::Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(status).map_err(|error| Refusal {
        message: format!("the status cannot be written as JSON: {error}"),
        hint: "this should not happen: please report it".to_owned(),
    })
}

/// The first SIGINT or SIGTERM stops the guest in order; a second one ends the process.
fn stop_on_signals(reach: Arc<Mutex<Reach>>) -> Result<(), Failure> {
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
            let reach = present(&reach);
            tokio::spawn(reach.answer(Request::Stop));
        }
    });
    Ok(())
}
