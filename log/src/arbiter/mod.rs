//! The arbiter: one small record per virtual machine that decides who may run it. It changes by compare-and-set only, and
//! every start, takeover and loss of a peer passes through it, so that two nodes that no longer hear each other can't both
//! go on.

mod asking;
mod error;
mod file;
mod record;
pub mod rules;
mod silence;

pub use asking::{ASK_AGAIN, Answer, Asking, Call, Question, ask};
pub use error::ArbiterError;
pub use file::FileArbiter;
pub use record::{Mode, Record};
pub use silence::Silence;

/// Keeps the record of one virtual machine. Calls block; they may take as long as a disk or a network takes.
pub trait Arbiter: Send + Sync {
    /// The present record; `None` if there never was one.
    ///
    /// # Errors
    ///
    /// [`ArbiterError`]: then nothing is known.
    fn read(&self) -> Result<Option<Record>, ArbiterError>;

    /// Replaces the record by `new` if it is `expected` still.
    ///
    /// # Errors
    ///
    /// [`ArbiterError`]: then it is not known whether it was replaced; read it.
    fn compare_and_set(&self, expected: Option<&Record>, new: &Record) -> Result<CasOutcome, ArbiterError>;
}

/// What became of a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever lost must not go on"]
pub enum CasOutcome {
    /// The record is the new one, durably.
    Won,
    /// The record was not the expected one, but this; nothing was changed.
    Lost(Option<Record>),
}

/// The arbiter that an address names: `file:PATH`.
///
/// # Errors
///
/// [`ArbiterError::Address`], [`ArbiterError::Unsupported`].
pub fn open(address: &str) -> Result<Box<dyn Arbiter>, ArbiterError> {
    match address.split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(Box::new(FileArbiter::new(path))),
        Some(("etcd", _)) => Err(ArbiterError::Unsupported { address: address.to_owned() }),
        _ => Err(ArbiterError::Address { address: address.to_owned() }),
    }
}
