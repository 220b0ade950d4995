//! An arbiter that gives no answer, as whoever is waiting may tell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ArbiterError;

/// Why an arbiter that is being asked gives no answer. Shared between the thread that asks and the node that tells of it.
#[derive(Clone, Debug, Default)]
pub struct Silence(Arc<Mutex<Option<String>>>);

impl Silence {
    /// There was no answer. Whether that is news: an arbiter is asked again and again.
    pub fn go_on(&self, why: &ArbiterError) -> bool {
        self.lock().replace(why.to_string()).is_none()
    }

    /// The answer is there.
    pub fn end(&self) {
        *self.lock() = None;
    }

    /// Why there is no answer, if one is waited for.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
