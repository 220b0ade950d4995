//! The built-in guests: programs that run in a machine without any system under them.
//!
//! Their sources are in `bare/`; `docs/guest-abi.md` says what they may rely on.

#[expect(unused_attributes, reason = "the file is also a crate, and that one has no standard library")]
#[path = "../bare/abi/src/lib.rs"]
pub mod abi;

/// A built-in guest.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The program.
    pub elf: &'static [u8],
    /// It has nothing to do on a machine without a network.
    pub needs_network: bool,
}

/// A guest whose program is the binary of the same name.
macro_rules! guest {
    ($name:literal, needs_network: $needs_network:literal, $summary:literal) => {
        Guest {
            name: $name,
            summary: $summary,
            elf: include_bytes!(concat!(env!("GUEST_IMAGES"), "/", $name)),
            needs_network: $needs_network,
        }
    };
}

/// All of them.
pub const ALL: &[Guest] = &[
    guest!("kv", needs_network: true, "key-value store: RESP on TCP port 6379, HTTP on port 80"),
    guest!("counter", needs_network: false, "counts milliseconds, prints now and then, echoes console input"),
    guest!("spin", needs_network: false, "computes for long stretches; answers lines on TCP port 7 in between"),
    guest!("crash", needs_network: false, "takes an exception on a `c` from the console or after some time"),
];

/// The guest of this name.
pub fn find(name: &str) -> Option<&'static Guest> {
    ALL.iter().find(|guest| guest.name == name)
}
