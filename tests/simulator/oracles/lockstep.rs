//! States are equal at equal positions. The replica itself compares digests at checkpoints and trails at batches; here the
//! trails are compared wherever it stands.

use std::collections::BTreeMap;

use echovisor_event::{Position, Term};

use super::{Verdict, Violation};

/// The course of the guest in each term.
#[derive(Default)]
pub(crate) struct Lockstep {
    trails: BTreeMap<(Term, Position), u64>,
}

impl Lockstep {
    /// The live guest came past these positions, with these trails.
    pub(crate) fn passed(&mut self, term: Term, passed: Vec<(Position, u64)>) {
        self.trails.extend(passed.into_iter().map(|(at, trail)| ((term, at), trail)));
    }

    /// A replica stands here.
    pub(crate) fn follows(&self, term: Term, at: Position, trail: u64) -> Verdict {
        match self.trails.get(&(term, at)) {
            Some(expected) if *expected != trail => Err(violation(format!(
                "in term {term} at position {at} the replica's trail is {trail:016x}, the guest's was {expected:016x}"
            ))),
            _ => Ok(()),
        }
    }

    /// A replica reports that it left the log's course.
    pub(crate) fn diverged(&self, what: &str) -> Verdict {
        Err(violation(what.to_owned()))
    }
}

fn violation(what: String) -> Violation {
    Violation { oracle: "states equal at equal positions", what }
}
