//! The processor, as a parameter of the machine.

pub mod kvm;
pub mod scripted;

use rkyv::{Archive, Deserialize, Serialize};

use crate::pages::PageSet;

/// A virtual processor that runs the guest until an instruction leaves to the machine.
pub trait Cpu {
    /// Runs the guest to its next exit. What the exit of the last call asked for (the data of a read) has been filled in
    /// by then.
    ///
    /// # Errors
    /// If the processor cannot go on; the message names the exit that nobody serves.
    fn enter(&mut self) -> Result<Exit<'_>, CpuError>;

    /// Completes the instruction of the last exit without running the next one. `None` means that it is complete and
    /// the processor stands at a boundary; otherwise the instruction had one more exit.
    ///
    /// # Errors
    /// As [`Cpu::enter`].
    fn complete(&mut self) -> Result<Option<Exit<'_>>, CpuError>;

    /// What calls the processor out of the guest with [`Reason::Kicked`], now or when it is entered next, from any thread.
    fn kicker(&self) -> Box<dyn Kick>;

    /// The whole state. Only meaningful at a boundary.
    ///
    /// # Errors
    /// If the host refuses to tell.
    fn save(&self) -> Result<CpuState, CpuError>;

    /// Replaces the whole state.
    ///
    /// # Errors
    /// If the state is of another kind of processor, invalid, or refused by the host. The processor is then in no
    /// defined state and must not be entered.
    fn restore(&mut self, state: &CpuState) -> Result<(), CpuError>;

    /// From now on the processor keeps account of the pages that the guest writes. It may slow the guest down.
    ///
    /// # Errors
    /// If the host refuses.
    fn track_writes(&mut self) -> Result<(), CpuError>;

    /// Adds the pages that the guest has written since the last call, or since [`Cpu::track_writes`], and forgets them. It
    /// may name pages that were only read. What the machine itself wrote, [`Memory`](crate::Memory) knows.
    ///
    /// # Errors
    /// If the host refuses to tell.
    fn take_written(&mut self, pages: &mut PageSet) -> Result<(), CpuError>;
}

/// Calls a processor out of the guest.
pub trait Kick: Send {
    /// Does so. One exit answers it, most often [`Reason::Kicked`], however often this was called before.
    fn kick(&self);
}

/// Why the guest stopped running, and where.
#[derive(Debug)]
pub struct Exit<'a> {
    /// The instruction pointer as the processor shows it at this exit. Whether it points at the instruction or past it
    /// differs between hosts' KVMs, but not between runs on one.
    pub rip: u64,
    /// Why.
    pub reason: Reason<'a>,
}

/// The exits that the machine knows. Any other ends the run with its name.
#[derive(Debug)]
pub enum Reason<'a> {
    /// `OUT`, or `OUTS` with several items of `width` bytes.
    PortWrite {
        /// The port.
        port: u16,
        /// Bytes per item: 1, 2 or 4.
        width: u8,
        /// All items.
        data: &'a [u8],
    },
    /// `IN`, or `INS` with several items of `width` bytes. The machine fills `data`.
    PortRead {
        /// The port.
        port: u16,
        /// Bytes per item: 1, 2 or 4.
        width: u8,
        /// All items.
        data: &'a mut [u8],
    },
    /// A store to an address without RAM.
    MmioWrite {
        /// The guest-physical address.
        address: u64,
        /// The bytes, at most 8.
        data: &'a [u8],
    },
    /// A load from an address without RAM. The machine fills `data`.
    MmioRead {
        /// The guest-physical address.
        address: u64,
        /// The bytes, at most 8.
        data: &'a mut [u8],
    },
    /// The host asked the processor to come out ([`Kick`]). Not a step of the guest. The last exit's instruction is complete, and
    /// the processor stands between two others.
    Kicked,
}

/// The whole state of a processor.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum CpuState {
    /// Of [`kvm::KvmCpu`].
    Kvm(Box<kvm::KvmState>),
    /// Of [`scripted::ScriptedCpu`].
    Scripted(scripted::ScriptedState),
}

/// What a processor can fail with.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// `/dev/kvm` cannot be opened.
    #[error("cannot open /dev/kvm: {source}")]
    Open {
        /// What the host said.
        source: kvm_ioctls::Error,
    },
    /// The host lacks something that the machine needs.
    #[error("{0}")]
    Unfit(String),
    /// A call to KVM failed.
    #[error("KVM refused {call}: {source}")]
    Kvm {
        /// The ioctl.
        call: &'static str,
        /// What it said.
        source: kvm_ioctls::Error,
    },
    /// The guest left for a reason that is on no list, so no replay could be promised beyond it.
    #[error("the guest stopped at {rip:#x} with an exit that the machine does not serve: {exit}")]
    UnknownExit {
        /// Instruction pointer.
        rip: u64,
        /// The exit's name and details.
        exit: String,
    },
    /// A saved state cannot be restored here.
    #[error("the processor state cannot be restored: {0}")]
    State(String),
}
