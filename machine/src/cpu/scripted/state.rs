//! The saved state of the scripted processor.

use rkyv::{Archive, Deserialize, Serialize};

use super::instruction::REGISTERS;

/// The state at a boundary. Any content is valid: a processor that finds no instruction at `pc` says so when entered.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptedState {
    /// Address of the next instruction.
    pub pc: u64,
    /// The registers.
    pub registers: [u64; REGISTERS],
}
