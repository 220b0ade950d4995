//! How the heap is shared between data and connections.

use net::Options;
use service::Heap;
use smoltcp::time::Duration;

/// Most clients of the key-value store at a time.
pub const RESP_CONNECTIONS: usize = 256;
/// Most clients of the pages at a time.
pub const HTTP_CONNECTIONS: usize = 64;

/// Sockets for RESP. Clients stay connected for as long as they like, so the idle are asked whether they are still there.
pub const RESP_SOCKETS: Options = Options {
    buffer: 16 << 10,
    keep_alive: Some(Duration::from_secs(60)),
    timeout: Duration::from_secs(180),
};
/// Sockets for HTTP. Browsers keep connections that they may never use again, so the idle are closed.
pub const HTTP_SOCKETS: Options =
    Options { buffer: 16 << 10, keep_alive: None, timeout: Duration::from_secs(60) };

/// Kept free of data: the buffers of all sockets, and as much again for requests and replies that are larger than those.
const RESERVE: usize =
    2 * 2 * (RESP_CONNECTIONS * RESP_SOCKETS.buffer + HTTP_CONNECTIONS * HTTP_SOCKETS.buffer);

/// The heap as the store sees it: at least three quarters of it, however small.
pub fn heap() -> Heap {
    let size = rt::heap::size();
    Heap { used: rt::heap::used, limit: size.saturating_sub(RESERVE).max(size / 4 * 3) }
}
