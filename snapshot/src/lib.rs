//! A guest's state at a position: its digest, its image, and how to bring another machine's state to it.
//!
//! The digest proves that two machines hold the same state without sending it; a capture is the state apart from the machine,
//! which runs on; the image carries the state to a machine that lacks it.

mod capture;
mod contents;
mod digest;
mod image;
mod retained;
mod running;
pub mod store;
pub mod sync;

pub use capture::{Capture, Precopy};
pub use digest::{PageDigests, state_digest};
pub use image::{IMAGE_VERSION, Image, ImageError, RestoreError};
pub use retained::{Retained, Spoilt};
pub use running::RunningDigest;
