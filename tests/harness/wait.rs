//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up. Far more than it needs: this is no measurement, only an end.
pub const LIMIT: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within [`LIMIT`], with the name of what was waited for and the last reason why it was not there.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if start.elapsed() > LIMIT => panic!("waited {LIMIT:?} for {what}; last seen: {why}"),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
