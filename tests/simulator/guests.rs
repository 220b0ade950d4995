//! The scripted guest of the simulation: a ledger, whose every answer tells its whole history.

use echovisor_machine::{
    Machine,
    cpu::scripted::{ScriptedCpu, programs::ledger},
};
use echovisor_tests::scripted;

/// The guest before its first instruction.
pub(crate) fn boot() -> Machine<ScriptedCpu> {
    scripted::boot(&ledger(16))
}

/// A request that no other equals.
pub(crate) fn request(number: u64) -> Vec<u8> {
    let mut frame = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_le_bytes());
    frame.resize(62, number as u8);
    frame
}
