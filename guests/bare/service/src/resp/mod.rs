//! RESP2, the protocol of redis.

mod inline;
mod parser;
mod reply;
mod session;

pub use parser::{Arguments, Parser, ProtocolError};
pub use reply::Reply;
pub use session::{Client, Session};
