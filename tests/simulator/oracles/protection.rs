//! No effect is released before its required acknowledgement: whoever could take over now holds everything that has left.

use std::collections::BTreeMap;

use echovisor_event::{NodeId, Position, Term};
use echovisor_log::arbiter::{Mode, Record};

use super::{Verdict, Violation};

/// What has left in each term.
#[derive(Default)]
pub(crate) struct Protection {
    newest: BTreeMap<Term, Position>,
}

impl Protection {
    /// An effect made at `at` has left in `term`.
    pub(crate) fn released(&mut self, term: Term, at: Position) {
        let newest = self.newest.entry(term).or_default();
        *newest = (*newest).max(at);
    }

    /// A secondary that believes that it may take over, under the arbiter's `record`, holds the log up to `held`.
    pub(crate) fn eligible(&self, node: NodeId, held: Position, record: &Record) -> Verdict {
        let newest = self.newest.get(&record.term).copied().unwrap_or_default();
        if record.mode == Mode::Protected(node) && held < newest {
            return Err(Violation {
                oracle: "no release before its acknowledgement",
                what: format!(
                    "an effect made at {newest} has left, but node {node} may take over and holds the log up to {held}"
                ),
            });
        }
        Ok(())
    }
}
