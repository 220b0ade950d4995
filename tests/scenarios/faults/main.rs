//! Everything that can happen to two nodes that live, provoked on real processes under a model-checked load: a file for each
//! fault. Kills of the primary alone are in `takeover.rs`.
//!
//! Each is repeated as often as `ECHOVISOR_FAULTS`, or `ECHOVISOR_KILLS`, says, and prints a row of a table.

mod arbiter_gone;
mod full_disk;
mod handshake;
mod kills_in_turn;
mod link_cut;
mod output_rule;
mod paused_primary;
mod secondary_kills;
mod stalled_secondary;
mod switchover;
mod wire;

use echovisor_tests::size;

/// How often each fault is provoked that is no kill.
fn times() -> u64 {
    size("ECHOVISOR_FAULTS", 1)
}
