//! What there is of a delta, until all of it is there.

use echovisor_event::{Position, limits::PAGE_SIZE};
use echovisor_machine::{MachineState, Memory, RestoreError, StateError};

/// Why a machine cannot take over a state from the log.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The pages are not rising, or the machine has fewer.
    #[error("a delta has page {page} {problem}")]
    Page {
        /// Its number.
        page: u64,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// The rest of it is none.
    #[error("a delta has {0}")]
    State(#[from] StateError),
    /// It leads nowhere.
    #[error("a delta leads to position {to}, which is not behind it")]
    Backwards {
        /// Where it leads.
        to: Position,
    },
    /// The machine refuses it.
    #[error("a delta's state is not this machine's: {0}")]
    Restore(#[from] RestoreError),
}

/// Pages that wait for the end of their delta. A machine that goes live before has none of them.
#[derive(Default)]
pub(crate) struct Delta {
    /// How many pages the machine has.
    pages: usize,
    /// The numbers, rising, and for those that are not zero where their contents begin.
    found: Vec<(usize, Option<usize>)>,
    contents: Vec<u8>,
}

impl Delta {
    /// For a machine with so many pages.
    pub(crate) fn of(pages: usize) -> Delta {
        Delta { pages, ..Delta::default() }
    }

    /// One more page.
    pub(crate) fn add(&mut self, page: u64, contents: &[u8]) -> Result<(), DeltaError> {
        let number = usize::try_from(page).ok().filter(|number| *number < self.pages);
        let Some(number) = number else {
            return Err(DeltaError::Page { page, problem: "which the guest does not have" });
        };
        if self.found.last().is_some_and(|(last, _)| *last >= number) {
            return Err(DeltaError::Page { page, problem: "out of order" });
        }
        self.found.push((number, (!contents.is_empty()).then_some(self.contents.len())));
        self.contents.extend_from_slice(contents);
        Ok(())
    }

    /// Puts the pages into `memory`, and gives the rest of the state, which stands behind position `at`.
    pub(crate) fn take(
        &mut self,
        at: Position,
        memory: &Memory,
        state: &[u8],
    ) -> Result<MachineState, DeltaError> {
        let state = MachineState::from_bytes(state)?;
        if state.position <= at {
            return Err(DeltaError::Backwards { to: state.position });
        }
        for (number, begin) in &self.found {
            let contents = begin.and_then(|begin| self.contents[begin..].first_chunk::<PAGE_SIZE>());
            memory.write_page(*number, contents.unwrap_or(&[0; PAGE_SIZE]));
        }
        self.forget();
        Ok(state)
    }

    /// What there is belongs to no delta any more.
    pub(crate) fn forget(&mut self) {
        self.found.clear();
        self.contents.clear();
    }
}
