//! The whole state of a machine besides its RAM.

use echovisor_event::{Nanos, Position};
use rkyv::{Archive, Deserialize, Serialize};

use crate::{cpu::CpuState, devices::DevicesState, trail::Trail};

/// Everything that decides what a machine does next, except RAM: with this, RAM and the log, another machine does the same.
/// Taken at a boundary.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct MachineState {
    /// The steps that are done.
    pub position: Position,
    /// Hash of everything the guest did.
    pub trail: Trail,
    /// The virtual clock.
    pub clock: Nanos,
    /// The deadline of the guest's sleep, if it sleeps.
    pub idle: Option<Nanos>,
    /// The exit code, if the guest has powered itself off.
    pub powered_off: Option<u32>,
    /// The processor.
    pub cpu: CpuState,
    /// The devices.
    pub devices: DevicesState,
}

/// Bytes that are no machine's state.
#[derive(Debug, thiserror::Error)]
#[error("not a machine's state: {0}")]
pub struct StateError(String);

impl MachineState {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("plain data serialises").into_vec()
    }

    /// Reads a state that came from outside. What it says of the machine is only checked when it is restored.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<MachineState, StateError> {
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<MachineState, rkyv::rancor::Error>(&aligned)
            .map_err(|error| StateError(error.to_string()))
    }

    /// The state as it goes into a digest: without what hardware changes on its own account.
    #[must_use]
    pub fn canonical(&self) -> MachineState {
        let cpu = match &self.cpu {
            CpuState::Kvm(state) => CpuState::Kvm(Box::new(state.canonical())),
            scripted @ CpuState::Scripted(_) => scripted.clone(),
        };
        MachineState { cpu, ..self.clone() }
    }
}
