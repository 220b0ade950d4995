//! A few pages over HTTP/1.1.

mod pages;
mod request;
mod response;
mod session;

pub use session::Session;
