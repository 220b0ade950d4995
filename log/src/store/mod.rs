//! A recording: a directory that holds the history of one guest. docs/formats/log.md tells its files, and what a crash
//! may leave of each.
//!
//! ```text
//! DIR/header             who is recorded: never changes
//! DIR/writer             which node writes it, and what that promises
//! DIR/segments/N.seg     the log itself: append-only, every record with its hash
//! DIR/index/             sled: what is in which segment, how much of the open one is durable; rebuilt if it is lost
//! DIR/snapshots/         a page store, written by others
//! DIR/lock               held while the recording is open
//! ```
//!
//! The segment files are the truth. sled recovers from damage by dropping what it cannot read, so nothing is believed only
//! because the index says so, and nothing is missing only because it does not.

mod contents;
mod continuation;
mod envelope;
mod error;
mod files;
mod header;
mod index;
mod layout;
mod reader;
mod recording;
mod segment;
mod writer;

pub use continuation::Writer;
pub use error::{Damage, DamageKind, StoreError};
pub use header::Header;
pub use index::{Checkpoint, Segment};
pub use reader::SegmentReader;
pub use recording::Recording;
pub use writer::{Reserved, Store};
