//! How large a scenario is.

use std::env;

/// The number in an environment variable, or the default, with which all scenarios together take minutes.
///
/// # Panics
/// If it is no number.
#[must_use]
pub fn size(variable: &str, default: u64) -> u64 {
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number"));
    env::var(variable).map_or(default, number)
}
