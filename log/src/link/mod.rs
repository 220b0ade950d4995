//! The transport between primary and secondary: messages, and the connection that carries them.
//!
//! Who says what when is decided by the recorder and the replayer, not here.

mod address;
mod clock;
mod error;
mod framed;
mod handshake;
mod kind;
mod message;
mod wire;

pub use address::{Address, Listener, Plaintext, dial};
pub use clock::boot_time;
pub use error::LinkError;
pub use framed::{Link, Receiver, Sender, Traffic, flush_or_wait, receive_or_wait};
pub use handshake::{Ours, accept, check_hello, check_welcome, greet, welcome};
pub use kind::{MessageKind, WireError};
pub use message::{
    Ack, Diverged, Fingerprint, Heartbeat, Hello, ImageBegin, Message, Ready, Refuse, RefuseCode, Resume,
    Welcome,
};
