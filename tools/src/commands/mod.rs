//! The commands, one module each: its arguments, and `run`.

pub mod bench;
pub mod check_host;
pub mod demo;
pub mod inspect;
pub mod keygen;
pub mod primary;
pub mod promote;
pub mod record;
pub mod replay;
pub mod secondary;
pub mod snapshot;
pub mod status;
pub mod stop;
