//! The history of a guest: what is recorded, how it becomes bytes, where it is kept, how it travels, and who may add to it.
//!
//! [`Record`]s are gathered in a [`Batch`], which an [`Encoder`] turns into a *body*: compressed, chained by hash. The same
//! body is kept by a [`store::Store`] and carried by a [`link::Link`]; a [`Decoder`] turns it back, and hands out nothing
//! that it has not validated. An [`arbiter::Arbiter`] decides which node may write history at all.
//!
//! docs/formats/log.md and docs/formats/link.md tell every byte of it.

pub mod arbiter;
mod batch;
mod codec;
mod columns;
mod flow;
pub mod limits;
pub mod link;
mod pages;
mod pool;
mod record;
pub mod store;
mod varint;

pub use batch::{Batch, Cursor, Head, Mark, PushError, Records};
pub use codec::{Compression, DecodeError, Decoder, EncodeError, Encoded, Encoder, SegmentStart};
pub use columns::ColumnError;
pub use pool::Pool;
pub use record::{Cause, Record};
