//! The control page: what the machine tells the guest, and the doorbell that hands over to the machine.

use crate::port;
use abi::Control;

const PAGE: *mut Control = abi::CONTROL_ADDRESS as *mut Control;

/// Reads a field of the control page, which the machine may have changed at any exit.
macro_rules! read {
    ($field:ident) => {
        // SAFETY: the machine maps the page at this address before entry and never takes it away.
        unsafe { (&raw const (*PAGE).$field).read_volatile() }
    };
}

/// Panics unless the machine speaks the same version of the contract.
pub(crate) fn check() {
    assert!(read!(magic) == abi::CONTROL_MAGIC, "no control page");
    assert!(read!(version) == abi::CONTROL_VERSION, "control page of version {}", read!(version));
}

/// Size of RAM, bytes.
pub fn memory_size() -> usize {
    read!(memory_size) as usize
}

/// First free byte behind the guest's segments.
pub fn image_end() -> usize {
    read!(image_end) as usize
}

/// Virtual time since boot, ns. It stands still between two exits.
pub fn clock() -> u64 {
    read!(clock)
}

/// UNIX time of virtual time 0 in ns, once the machine knows it.
pub fn wall() -> Option<u64> {
    Some(read!(wall)).filter(|&wall| wall != 0)
}

/// Entropy as four words.
pub fn seed() -> [u64; 4] {
    let bytes = read!(seed);
    core::array::from_fn(|word| {
        let word = bytes[word * 8..][..8].try_into();
        u64::from_le_bytes(word.expect("eight bytes are a word"))
    })
}

/// The argument string.
pub(crate) fn arguments() -> &'static str {
    let length = (read!(arguments_length) as usize).min(abi::ARGUMENTS_MAX);
    // SAFETY: the machine writes the arguments once, before entry, and nobody writes them after that.
    let bytes = unsafe { &(*PAGE).arguments };
    core::str::from_utf8(&bytes[..length]).expect("the arguments are UTF-8")
}

/// Rings the doorbell: the machine takes what the guest's transmit queues hold, gives what has come, and sleeps until
/// there is input or `deadline`, in ns of virtual time, has passed. `None` sleeps until there is input.
///
/// The only way to let time pass, and the only exit that a busy network needs.
pub fn wait(deadline: Option<u64>) {
    // SAFETY: `PAGE` is mapped and only the guest writes this field. The doorbell lets the machine write to buffers in
    // device queues, whose drivers treat them as the device's own, and to this page, which is read as volatile.
    unsafe {
        (&raw mut (*PAGE).deadline).write_volatile(deadline.unwrap_or(u64::MAX));
        port::write_u32(abi::DOORBELL_PORT, 0);
    }
}
