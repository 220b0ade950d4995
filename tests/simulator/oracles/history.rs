//! No effect that left is lost or contradicted: each answer that was ever released is part of the history of the guest that
//! goes on. And none is left out: an answer leaves only when all before it have left, from one primary or from another.

use std::collections::BTreeMap;

use echovisor_event::{Position, Term};

use super::{Answer, Verdict, Violation};

/// What was answered.
#[derive(Default)]
pub(crate) struct History {
    /// What has left, by its number.
    released: BTreeMap<u64, Answer>,
    /// Every answer that the guest has made in each term, whether it left or not. A term begins with what its primary
    /// inherited.
    made: BTreeMap<Term, Vec<(Position, Answer)>>,
}

impl History {
    /// The live guest made these answers.
    pub(crate) fn made(&mut self, term: Term, answers: Vec<(Position, Answer)>) {
        self.made.entry(term).or_default().extend(answers);
    }

    /// A replica that began to follow at `begun` in the term before `term`, and made these answers itself, goes live.
    pub(crate) fn inherited(
        &mut self,
        (from, begun): (Term, Position),
        term: Term,
        own: Vec<(Position, Answer)>,
    ) -> Verdict {
        let before = self.made.get(&from).into_iter().flatten().filter(|(at, _)| *at <= begun);
        let history: Vec<_> = before.copied().chain(own).collect();
        for answer in self.released.values() {
            let index = answer.number as usize - 1;
            match history.get(index) {
                Some((_, present)) if present == answer => {}
                Some((_, present)) => {
                    return Err(violation(format!(
                        "{answer:?} has left, but in term {term} it is {present:?}"
                    )));
                }
                None => return Err(violation(format!("{answer:?} has left, but is unknown in term {term}"))),
            }
        }
        self.made.insert(term, history);
        Ok(())
    }

    /// An answer left the guest that is live in `term`; where it was made.
    pub(crate) fn released(&mut self, term: Term, answer: Answer) -> Result<Position, Violation> {
        if let Some(before) = self.released.insert(answer.number, answer)
            && before != answer
        {
            return Err(violation(format!("{before:?} has left, and then {answer:?}")));
        }
        if answer.number > 1 && !self.released.contains_key(&(answer.number - 1)) {
            return Err(violation(format!(
                "{answer:?} has left in term {term}, but never the one before it"
            )));
        }
        let made = self.made.get(&term).and_then(|made| made.get(answer.number as usize - 1));
        match made {
            Some((at, present)) if *present == answer => Ok(*at),
            other => Err(violation(format!("{answer:?} left in term {term}, where {other:?} was made"))),
        }
    }

    /// How many answers have left.
    pub(crate) fn count(&self) -> usize {
        self.released.len()
    }
}

fn violation(what: String) -> Violation {
    Violation { oracle: "no effect lost or contradicted", what }
}
