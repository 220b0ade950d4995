//! The effects of a secondary's guest that the primary may not have released.

use std::collections::VecDeque;

use echovisor_event::{Effect, Position};
use echovisor_machine::Effects;

use crate::{replay::Witness, rewind::Rewind};

/// Most bytes of effects that are kept. The primary holds at most as many at its gate, and tells with every batch what has
/// left; beyond this the oldest are dropped, and it is up to the guest's protocols to send them again.
const KEPT_MAX: usize = 32 << 20;

/// What the guest of a secondary has done and the primary has not confirmed as released. At a takeover it is sent again: at
/// least once, as a network may do, and TCP absorbs what comes twice.
#[derive(Default)]
pub struct Unconfirmed {
    kept: VecDeque<(Position, Kept)>,
    bytes: usize,
}

enum Kept {
    Frame(Box<[u8]>),
    Console(Box<[u8]>),
    PowerOff(u32),
}

impl Kept {
    /// What it takes to keep it, bytes.
    fn cost(&self) -> usize {
        let bytes = match self {
            Kept::Frame(bytes) | Kept::Console(bytes) => bytes.len(),
            Kept::PowerOff(_) => 0,
        };
        bytes + size_of::<(Position, Kept)>()
    }
}

impl Unconfirmed {
    /// How many effects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether everything is confirmed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Hands all effects to `send`, in order.
    pub fn resend(&self, mut send: impl FnMut(Position, Effect<'_>)) {
        for (at, kept) in &self.kept {
            match kept {
                Kept::Frame(bytes) => send(*at, Effect::Frame(bytes)),
                Kept::Console(bytes) => send(*at, Effect::Console(bytes)),
                Kept::PowerOff(code) => send(*at, Effect::PowerOff(*code)),
            }
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, kept)) = self.kept.pop_front() {
            self.bytes -= kept.cost();
        }
    }
}

impl Effects for Unconfirmed {
    fn effect(&mut self, at: Position, effect: Effect<'_>) {
        let kept = match effect {
            Effect::Frame(bytes) => Kept::Frame(bytes.into()),
            Effect::Console(bytes) => Kept::Console(bytes.into()),
            Effect::PowerOff(code) => Kept::PowerOff(code),
        };
        self.bytes += kept.cost();
        self.kept.push_back((at, kept));
        while self.bytes > KEPT_MAX {
            self.drop_oldest();
        }
    }
}

impl Witness for Unconfirmed {
    fn released(&mut self, up_to: Position) {
        while self.kept.front().is_some_and(|(at, _)| *at <= up_to) {
            self.drop_oldest();
        }
    }
}

impl Rewind for Unconfirmed {
    fn rewind(&mut self, to: Position) {
        while let Some((_, kept)) = self.kept.pop_back_if(|(at, _)| *at > to) {
            self.bytes -= kept.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_released_is_forgotten_and_the_rest_stays_in_order() {
        let mut unconfirmed = Unconfirmed::default();
        unconfirmed.effect(Position(3), Effect::Frame(b"three"));
        unconfirmed.effect(Position(4), Effect::Console(b"four"));
        unconfirmed.effect(Position(9), Effect::PowerOff(0));
        unconfirmed.released(Position(3));
        let mut seen = Vec::new();
        unconfirmed.resend(|at, _| seen.push(at.0));
        assert_eq!(seen, [4, 9]);
        unconfirmed.rewind(Position(4));
        unconfirmed.effect(Position(9), Effect::PowerOff(0));
        assert_eq!(unconfirmed.len(), 2, "what is done again is not there twice");
        unconfirmed.released(Position(9));
        assert!(unconfirmed.is_empty());
        assert_eq!(unconfirmed.bytes, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut unconfirmed = Unconfirmed::default();
        let frame = vec![0; 9000];
        for at in 0..5000 {
            unconfirmed.effect(Position(at), Effect::Frame(&frame));
        }
        assert!(unconfirmed.bytes <= KEPT_MAX);
    }
}
