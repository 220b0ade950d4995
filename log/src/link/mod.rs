//! The transport between primary and secondary: messages, and the connection that carries them.
//!
//! Who says what when is decided by the recorder and the replayer, not here.

mod address;
mod clock;
mod error;
mod framed;
mod handshake;
mod keys;
mod kind;
mod message;
mod tls;
mod traffic;
mod wire;

pub use address::{Address, Incoming, Listener, bind_private, dial};
pub use clock::boot_time;
pub use error::LinkError;
pub use framed::{Link, Receiver, Sender, flush_at_once, flush_or_wait, receive_or_wait};
pub use handshake::{Ours, accept, check_hello, check_welcome, greet, welcome};
pub use keys::{KeyError, Keys, PrivateKey, PublicKey};
pub use kind::{MessageKind, WireError};
pub use message::{
    Ack, Diverged, Fingerprint, HandOver, Heartbeat, Hello, Message, Ready, Refuse, RefuseCode, Resume,
    SyncAsk, SyncBegin, Welcome,
};
pub use traffic::Traffic;
