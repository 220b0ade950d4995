//! One live primary per term, and nothing leaves in a term that is over.

use std::collections::BTreeMap;

use echovisor_event::{NodeId, Term};
use echovisor_log::arbiter::{Mode, Record};

use super::{Verdict, Violation};

/// Who has been primary in which term.
#[derive(Default)]
pub(crate) struct Fencing {
    primaries: BTreeMap<Term, NodeId>,
}

impl Fencing {
    /// A node goes live.
    pub(crate) fn live(&mut self, term: Term, node: NodeId) -> Verdict {
        match self.primaries.insert(term, node) {
            Some(other) if other != node => {
                Err(violation(format!("nodes {other} and {node} are both primary in term {term}")))
            }
            _ => Ok(()),
        }
    }

    /// An effect left a node that is primary in `term`, while the arbiter's record is `record`. Stricter than a burst in
    /// flight would allow: here a burst takes no time.
    pub(crate) fn released(&self, term: Term, node: NodeId, record: &Record) -> Verdict {
        if record.term != term || record.holder != node {
            return Err(violation(format!(
                "node {node} released an effect in term {term}, but node {} holds the guest in term {}",
                record.holder, record.term
            )));
        }
        if record.mode == Mode::Ended {
            return Err(violation(format!("node {node} released an effect after the guest's end")));
        }
        Ok(())
    }
}

fn violation(what: String) -> Violation {
    Violation { oracle: "one live primary per term", what }
}
