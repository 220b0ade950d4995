//! Asking an arbiter until its answer is certain.
//!
//! A call that gives no answer may have been carried out all the same, and the next one must tell that from a defeat.

use std::{thread::sleep, time::Duration};

use echovisor_event::NodeId;

use super::{Arbiter, ArbiterError, CasOutcome, Record, rules};

/// How long to wait before an arbiter that gave no answer is asked again.
pub const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What a node wants of the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The holder wants its record `from` replaced by `to`.
    Replace {
        /// The record that is expected.
        from: Record,
        /// The new one.
        to: Record,
    },
    /// This node wants the guest whose primary it suspects to be dead.
    TakeOver(NodeId),
}

/// What the arbiter has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The record is this one, as the node wanted.
    Won(Record),
    /// The record is this one, and does not allow what the node wanted.
    Lost(Record),
}

/// One call to the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Arbiter::read`].
    Read,
    /// [`Arbiter::compare_and_set`].
    CompareAndSet {
        /// The record that is expected.
        expected: Record,
        /// The new one.
        new: Record,
    },
}

impl Call {
    /// Makes the call.
    ///
    /// # Errors
    /// Then it is not known whether it was carried out.
    pub fn make(self, arbiter: &dyn Arbiter) -> Result<CasOutcome, ArbiterError> {
        match self {
            Call::Read => arbiter.read().map(CasOutcome::Lost),
            Call::CompareAndSet { expected, new } => arbiter.compare_and_set(Some(&expected), &new),
        }
    }
}

/// A question on its way to a certain answer, as a pure state machine: make [`Asking::call`], hand the outcome to
/// [`Asking::heard`], until that gives an answer.
#[derive(Clone, Debug)]
pub struct Asking {
    question: Question,
    call: Call,
    /// The record by which this node may have taken over already, though it was not told.
    wanted: Option<Record>,
}

impl Asking {
    /// Begins to ask.
    #[must_use]
    pub fn new(question: Question) -> Asking {
        let call = match question {
            Question::Replace { from, to } => Call::CompareAndSet { expected: from, new: to },
            Question::TakeOver(_) => Call::Read,
        };
        Asking { question, call, wanted: None }
    }

    /// The call to make now.
    #[must_use]
    pub fn call(&self) -> Call {
        self.call
    }

    /// Takes what came of the call; a read counts as lost against what it found. `None` means that there is another call to
    /// make.
    ///
    /// # Errors
    /// If nothing is known yet: ask again after [`ASK_AGAIN`]. A record that is missing where a node holds the guest or
    /// protects it is no answer either: it was put aside by someone, who may bring it back.
    pub fn heard(
        &mut self,
        outcome: Result<CasOutcome, ArbiterError>,
    ) -> Result<Option<Answer>, ArbiterError> {
        match (self.question, self.call, outcome) {
            (_, Call::CompareAndSet { new, .. }, Ok(CasOutcome::Won)) => Ok(Some(Answer::Won(new))),
            (_, Call::Read, Ok(CasOutcome::Won)) => unreachable!("who reads wins nothing"),
            (Question::Replace { to, .. }, _, Ok(CasOutcome::Lost(Some(present)))) => {
                Ok(Some(if present == to { Answer::Won(to) } else { Answer::Lost(present) }))
            }
            (Question::TakeOver(me), Call::Read, Ok(CasOutcome::Lost(Some(present)))) => {
                Ok(self.take_over(present, me))
            }
            // Who was faster decides what the rules say now.
            (Question::TakeOver(_), Call::CompareAndSet { .. }, Ok(CasOutcome::Lost(Some(_)))) => {
                self.call = Call::Read;
                Ok(None)
            }
            (question, _, unknown) => {
                if let Question::TakeOver(_) = question {
                    self.call = Call::Read;
                }
                Err(unknown.err().unwrap_or(ArbiterError::Missing))
            }
        }
    }

    fn take_over(&mut self, present: Record, me: NodeId) -> Option<Answer> {
        if self.wanted == Some(present) {
            return Some(Answer::Won(present));
        }
        match rules::take_over(Some(&present), me) {
            Ok(new) => {
                self.wanted = Some(new);
                self.call = Call::CompareAndSet { expected: present, new };
                None
            }
            Err(_) => Some(Answer::Lost(present)),
        }
    }
}

/// Asks until the answer is certain, or `given_up` says that nobody wants to know it any more. `problem` hears why there is
/// no answer yet. Blocks.
pub fn ask(
    arbiter: &dyn Arbiter,
    question: Question,
    given_up: impl Fn() -> bool,
    mut problem: impl FnMut(&ArbiterError),
) -> Option<Answer> {
    let mut asking = Asking::new(question);
    while !given_up() {
        match asking.heard(asking.call().make(arbiter)) {
            Ok(Some(answer)) => return Some(answer),
            Ok(None) => {}
            Err(error) => {
                problem(&error);
                sleep(ASK_AGAIN);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use echovisor_event::{Term, VmId};

    use super::*;
    use crate::arbiter::Mode;

    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);

    fn record(term: u64, holder: NodeId, mode: Mode) -> Record {
        Record { vm: VmId([9; 16]), term: Term(term), holder, mode }
    }

    fn no_answer() -> Result<CasOutcome, ArbiterError> {
        Err(ArbiterError::Busy { file: "record".into() })
    }

    #[test]
    fn who_was_not_told_of_its_success_learns_of_it() {
        let (from, to) = (record(1, A, Mode::Protected(B)), record(1, A, Mode::Solo));
        let mut asking = Asking::new(Question::Replace { from, to });
        assert!(asking.heard(no_answer()).is_err());
        let answer = asking.heard(Ok(CasOutcome::Lost(Some(to))));
        assert_eq!(answer.expect("an answer"), Some(Answer::Won(to)));

        let taken = record(2, B, Mode::Solo);
        let mut asking = Asking::new(Question::TakeOver(B));
        assert!(asking.heard(Ok(CasOutcome::Lost(Some(from)))).expect("no error").is_none());
        assert_eq!(asking.call(), Call::CompareAndSet { expected: from, new: taken });
        assert!(asking.heard(no_answer()).is_err());
        assert_eq!(asking.call(), Call::Read);
        let answer = asking.heard(Ok(CasOutcome::Lost(Some(taken))));
        assert_eq!(answer.expect("an answer"), Some(Answer::Won(taken)));
    }

    #[test]
    fn a_missing_record_is_no_answer() {
        let (from, to) = (record(1, A, Mode::Protected(B)), record(1, A, Mode::Solo));
        for question in [Question::Replace { from, to }, Question::TakeOver(B)] {
            let mut asking = Asking::new(question);
            assert!(matches!(asking.heard(Ok(CasOutcome::Lost(None))), Err(ArbiterError::Missing)));
        }
    }

    #[test]
    fn who_is_overtaken_reads_again() {
        let mut asking = Asking::new(Question::TakeOver(B));
        let protected = record(1, A, Mode::Protected(B));
        assert!(asking.heard(Ok(CasOutcome::Lost(Some(protected)))).expect("no error").is_none());
        let solo = record(1, A, Mode::Solo);
        assert!(asking.heard(Ok(CasOutcome::Lost(Some(solo)))).expect("no error").is_none());
        let answer = asking.heard(Ok(CasOutcome::Lost(Some(solo))));
        assert_eq!(answer.expect("an answer"), Some(Answer::Lost(solo)));
    }
}
