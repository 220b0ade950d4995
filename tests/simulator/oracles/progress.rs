//! After the faults have ended the guest answers and is protected again, unless all who could have run it are gone.

use super::{Verdict, Violation};

/// Whether the guest can still be expected to run.
#[derive(Default)]
pub(crate) struct Progress {
    /// A crash hit the last node that could have run the guest.
    lost: bool,
}

impl Progress {
    /// A process has died, and this says whether another is left that runs the guest or may take over.
    pub(crate) fn crashed(&mut self, survivable: bool) {
        self.lost |= !survivable;
    }

    /// Whether nobody can run the guest any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The time in which everything should have recovered is over.
    pub(crate) fn judge(&self, recovered: bool, state: impl FnOnce() -> String) -> Verdict {
        if recovered || self.lost {
            return Ok(());
        }
        Err(Violation { oracle: "progress after faults end", what: state() })
    }
}
