//! What the commands that run a guest have in common.

mod control;
mod failures;
mod guest;
pub mod history;
mod idle;
mod origin;
mod outlet;
mod past;
pub mod report;
mod roles;
mod shelf;

use echovisor_event::NodeId;
use echovisor_log::{arbiter::Record, link::Fingerprint};
use echovisor_machine::{
    boot::{Crash, Symbols},
    cpu::kvm,
};
use echovisor_recorder::Ended;

pub use self::{
    control::{Controls, Reach, primary_commands, secondary_commands},
    guest::{Launch, announcement, config, launch, port, program, symbols},
    idle::{Drain, Strays, drain},
    origin::Origin,
    outlet::outlet,
    past::{Past, Resumed},
    roles::{Former, Primary, Role, Secondary, Station},
    shelf::Shelf,
};
use crate::failure::{Exit, Failure};

/// What a guest's end means for the process.
///
/// # Errors
/// If the guest failed.
pub fn ended(how: Ended, program: &[u8]) -> Result<Exit, Failure> {
    match how {
        Ended::Stopped | Ended::PoweredOff(0) => Ok(Exit::Done),
        Ended::PoweredOff(code) => Err(Failure::new(
            format!("the guest powered itself off with code {code}"),
            "what it wrote on its console says why",
        )),
        Ended::Crashed(crash) => Err(crashed(&crash, program)),
    }
}

/// Another node runs the guest, and this one does not know where to join it.
#[must_use]
pub fn superseded(record: &Record) -> Failure {
    let hint =
        "join it: echovisor secondary --join ADDRESS; a node does so by itself if its secondary has --listen";
    Failure::new(superseded_by(record), hint)
}

/// What a node says that was primary.
fn superseded_by(record: &Record) -> String {
    let Record { holder, term, .. } = record;
    format!("this node is not the primary any more: node {holder} in term {term} runs the guest")
}

/// A guest that an exception ended, with the function where that happened if the program tells.
#[must_use]
pub fn crashed(crash: &Crash, program: &[u8]) -> Failure {
    let function = Symbols::of(program).ok().and_then(|symbols| symbols.resolve(crash.rip));
    let place =
        function.map_or(String::new(), |function| format!(" in {}", rustc_demangle::demangle(&function)));
    Failure::new(
        format!("the guest crashed{place}: {crash}"),
        "a recording replays to this point, as often as you like",
    )
}

/// Bytes that nobody can guess.
///
/// # Errors
/// If the host has none to give.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|error| {
        Failure::new("the host gives no random bytes", "see whether the sandbox forbids getrandom")
            .because(error)
    })?;
    Ok(bytes)
}

/// A node's identity: a new one for each run.
///
/// # Errors
/// As [`random`].
pub fn node_id() -> Result<NodeId, Failure> {
    random().map(NodeId)
}

/// This host, as the log's header and the link know it.
///
/// # Errors
/// If the host's processor lacks what the machine offers.
pub fn fingerprint() -> Result<Fingerprint, Failure> {
    let host = kvm::Fingerprint::of_host()?;
    Ok(Fingerprint { text: host.to_string(), digest: host.digest() })
}
