//! A network namespace.

use echovisor_tools::lab;
pub use echovisor_tools::lab::Traffic;

/// A network of its own, as [`lab::Namespace`] makes it, for tests: whatever cannot be done fails the test.
#[derive(Debug)]
pub struct Namespace(pub(crate) lab::Namespace);

impl Namespace {
    /// A new namespace.
    ///
    /// # Panics
    /// If it cannot be made: outside of [`scenario`](crate::scenario) that needs root.
    #[must_use]
    pub fn new() -> Namespace {
        Namespace(must(lab::Namespace::new()))
    }

    /// Does something in this namespace.
    ///
    /// # Panics
    /// If it panics, or the namespace cannot be entered.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        must(self.0.enter(act))
    }

    /// Runs `ip` in this namespace, with arguments that are separated by blanks.
    ///
    /// # Panics
    /// If `ip` fails.
    pub fn ip(&self, arguments: &str) {
        must(self.0.ip(arguments));
    }

    /// Lets no more than `rate` (such as `100mbit`) leave through `interface`.
    ///
    /// # Panics
    /// If `tc` fails.
    pub fn shape(&self, interface: &str, rate: &str) {
        must(self.0.shape(interface, rate));
    }

    /// Makes what leaves through `interface` late, lost or out of order, by netem's own options, such as `delay 5ms loss 1%`.
    ///
    /// # Panics
    /// If `tc` fails: not every kernel has netem.
    pub fn impair(&self, interface: &str, options: &str) {
        must(self.0.impair(interface, options));
    }

    /// What has gone through an interface.
    ///
    /// # Panics
    /// If there is no such interface.
    #[must_use]
    pub fn traffic(&self, interface: &str) -> Traffic {
        must(self.0.traffic(interface))
    }
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace::new()
    }
}

/// What a test cannot go on without.
pub(crate) fn must<T>(had: Result<T, lab::LabError>) -> T {
    had.unwrap_or_else(|error| panic!("{}", echovisor_tools::failure::Failure::from(error)))
}
