//! What a guest does to the outside.

/// An output of the guest. It leaves the host only through the commit gate, once every event that led to it is held by
/// all whose acknowledgement is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The guest sent an Ethernet frame, without its frame check sequence.
    Frame(&'a [u8]),
    /// The guest wrote to its console.
    Console(&'a [u8]),
    /// The guest powered itself off with this exit code.
    PowerOff(u32),
}
