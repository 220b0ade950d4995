//! A long command that its user has seen enough of.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Does the work of `command`, and drops it where it stands when this process is interrupted or told to end.
///
/// # Errors
/// If the work fails, or is interrupted.
pub(crate) async fn unless_interrupted<T>(
    command: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    // Heard from the beginning: there must be no moment at which an interruption leaves something behind.
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let interruption = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::select! {
        done = work => done,
        () = interruption => {
            let hint = format!("no process and no file of the {command} is left; run it again at any time");
            Err(Failure::new("interrupted", hint))
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        let hint = "see whether the limit of open files (`ulimit -n`) is reached";
        Failure::new("cannot listen for signals", hint).because(error)
    })
}
