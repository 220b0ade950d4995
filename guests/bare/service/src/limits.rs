//! What a peer may ask for. Each limit bounds the memory that one connection can take.

/// Longest key or value, bytes.
pub const VALUE_MAX: usize = 1 << 20;
/// Longest request, bytes: a few values of the largest size.
pub const REQUEST_MAX: usize = 4 * VALUE_MAX;
/// Most arguments of a request, as in redis.
pub const ARGUMENTS_MAX: usize = 1 << 20;
/// Longest line of RESP, bytes, as in redis.
pub const LINE_MAX: usize = 64 << 10;
/// Longest head of an HTTP request, bytes.
pub const HEAD_MAX: usize = 8 << 10;
/// Most headers of an HTTP request.
pub const HEADERS_MAX: usize = 64;
/// Output from which on a session waits until it is sent, bytes: what a socket takes at once.
pub const OUTPUT_HIGH: usize = 16 << 10;
/// Most output of a connection, bytes: one more request is answered while less than [`OUTPUT_HIGH`] waits.
pub const OUTPUT_MAX: usize = 8 << 20;
/// Capacity from which on an empty buffer is freed, bytes.
pub const IDLE_MAX: usize = 64 << 10;
