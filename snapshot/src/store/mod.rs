//! The page store: a directory that holds snapshots, which share what is equal in them. docs/formats/snapshot.md tells its
//! files, and what a crash may leave of each.
//!
//! ```text
//! DIR/manifests/POSITION.snapshot   a snapshot: the root of its pages, its state's address, when and where it was taken
//! DIR/packs/N.pack                  the objects: pages, nodes of the digest tree, machine states; append-only
//! DIR/index/                        sled: which object is where; rebuilt if it is lost
//! DIR/lock                          held while the store is open
//! ```
//!
//! An object is addressed by the digest of its content, so it is stored once, whoever has it, and whoever reads it can
//! check it. A snapshot's tree leads from one root to all its pages; what two snapshots have in common is one subtree, so a
//! snapshot costs what has changed since the one before.
//!
//! The packs are the truth. Nothing is believed only because the index says so, and nothing is missing only because it does
//! not.

mod append;
mod damage;
mod error;
mod files;
mod index;
mod layout;
mod manifest;
mod objects;
mod pack;
mod record;
mod recover;
mod retain;
mod scan;
mod share;
mod snapshots;
mod verify;
mod writer;

pub use damage::{Damage, DamageKind, Part};
pub use error::StoreError;
pub use manifest::Manifest;
pub use retain::{Freed, Keep};
pub use share::Share;
pub use snapshots::Snapshots;
pub use writer::{PageSource, PageStore, SnapshotParts, Written};

/// Version of the store's format.
pub const STORE_VERSION: u16 = 1;
