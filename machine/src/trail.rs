//! A running hash over everything the guest does.

use echovisor_event::Effect;
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Eight bytes that depend on every exit of the guest (kind, address, data, instruction pointer) and on every effect.
///
/// Two machines that were given the same events and have different trails have diverged. The hash is not cryptographic: it
/// finds faults, not forgeries.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail(pub u64);

impl Trail {
    /// Adds an exit of `kind` at `address` that moved `data`, with the instruction pointer `rip`.
    pub(crate) fn exit(&mut self, kind: u8, address: u64, data: &[u8], rip: u64) {
        let head = [u64::from(kind) << 56 ^ address, rip];
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&head[0].to_le_bytes());
        bytes[8..].copy_from_slice(&head[1].to_le_bytes());
        self.0 = xxh3_64_with_seed(data, xxh3_64_with_seed(&bytes, self.0));
    }

    /// Adds an effect.
    pub(crate) fn effect(&mut self, effect: &Effect<'_>) {
        self.0 = match effect {
            Effect::Frame(frame) => xxh3_64_with_seed(frame, self.0 ^ 1),
            Effect::Console(bytes) => xxh3_64_with_seed(bytes, self.0 ^ 2),
            Effect::PowerOff(code) => xxh3_64_with_seed(&code.to_le_bytes(), self.0 ^ 3),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_leaves_a_mark() {
        let after = |leave: &dyn Fn(&mut Trail)| {
            let mut trail = Trail::default();
            leave(&mut trail);
            trail.0
        };
        let marks = [
            0,
            after(&|trail| trail.exit(1, 0x600, &[0; 4], 0x1000)),
            after(&|trail| trail.exit(2, 0x600, &[0; 4], 0x1000)),
            after(&|trail| trail.exit(1, 0x604, &[0; 4], 0x1000)),
            after(&|trail| trail.exit(1, 0x600, &[1, 0, 0, 0], 0x1000)),
            after(&|trail| trail.exit(1, 0x600, &[0; 3], 0x1000)),
            after(&|trail| trail.exit(1, 0x600, &[0; 4], 0x1002)),
            after(&|trail| trail.effect(&Effect::Frame(b"a"))),
            after(&|trail| trail.effect(&Effect::Console(b"a"))),
            after(&|trail| trail.effect(&Effect::Frame(b"b"))),
            after(&|trail| trail.effect(&Effect::PowerOff(0))),
            after(&|trail| trail.effect(&Effect::PowerOff(1))),
            // The order counts.
            after(&|trail| {
                trail.exit(1, 0x600, &[], 0);
                trail.effect(&Effect::Frame(b"a"));
            }),
            after(&|trail| {
                trail.effect(&Effect::Frame(b"a"));
                trail.exit(1, 0x600, &[], 0);
            }),
        ];
        let different: std::collections::BTreeSet<u64> = marks.into();
        assert_eq!(different.len(), marks.len());
    }

    /// Recordings and nodes of one version must agree with those of the next.
    #[test]
    fn the_hash_never_changes() {
        let mut trail = Trail::default();
        trail.exit(1, 0x600, &[1, 2, 3, 4], 0x20_0000);
        trail.effect(&Effect::Frame(&[5; 60]));
        assert_eq!(trail.0, 0xd266_ea7f_7309_f6ec);
    }
}
