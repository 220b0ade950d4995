//! Where a primary's guest comes from: it boots, or goes on from its store.

use std::path::Path;

use echovisor_event::{Position, Term, VmId};
use echovisor_log::{
    SegmentStart,
    link::Fingerprint,
    store::{Header, Store},
};
use echovisor_machine::{Machine, MachineConfig, boot::boot, cpu::kvm::KvmCpu};
use echovisor_replayer::Unconfirmed;
use echovisor_snapshot::store::PageStore;

use super::{Past, Resumed, config, program};
use crate::{
    cli::{GuestArgs, NetArgs},
    failure::Failure,
    snapshots,
};

/// A guest that is about to run here.
pub struct Origin {
    /// It, at a boundary.
    pub machine: Machine<KvmCpu>,
    /// What it is made of.
    pub config: MachineConfig,
    /// Its program, if that is at hand: it names the place of a crash.
    pub program: Vec<u8>,
    /// Where its log and its snapshots go.
    pub store: Option<(Store, PageStore)>,
    /// What it has done that may not have left.
    pub unconfirmed: Unconfirmed,
}

impl Origin {
    /// A guest that stands before its first instruction; its log will be kept in `folder`.
    ///
    /// # Errors
    /// If it cannot be booted, or the folder cannot be used.
    pub fn boot(
        (guest, net): (&GuestArgs, &NetArgs),
        folder: Option<&Path>,
        vm: VmId,
        fingerprint: &Fingerprint,
    ) -> Result<Origin, Failure> {
        let program = program(guest)?;
        let config = config(guest, net, &program);
        let machine = boot(&config, &program)?;
        let create = |folder: &Path| -> Result<(Store, PageStore), Failure> {
            let (fingerprint, guest, machine_bytes) =
                (fingerprint.clone(), config.program, config.to_bytes());
            let store = Store::create(folder, &Header { vm, fingerprint, guest, machine: machine_bytes })?;
            let snapshots = snapshots::begin(&store.snapshots_dir(), &machine)?;
            Ok((store, snapshots))
        };
        let store = folder.map(create).transpose()?;
        Ok(Origin { machine, config, program, store, unconfirmed: Unconfirmed::default() })
    }

    /// A guest that goes on where its log ends.
    ///
    /// # Errors
    /// As [`Past::resume`].
    pub fn past(past: Past, guest: &GuestArgs) -> Result<Origin, Failure> {
        let Resumed { machine, unconfirmed, replayed, time } = past.resume()?;
        tracing::warn!(
            "the guest goes on from its store at position {}; {replayed} positions replayed in {:.1} ms",
            machine.position(),
            time.as_secs_f64() * 1e3
        );
        let Past { store, snapshots, config, .. } = past;
        // Another file of the same name, or another release's guest, would name the wrong places.
        let program = program(&GuestArgs { name: config.guest.clone(), ..guest.clone() })
            .ok()
            .filter(|program| blake3::hash(program).as_bytes() == &config.program.0)
            .unwrap_or_default();
        Ok(Origin { machine, config, program, store: Some((store, snapshots)), unconfirmed })
    }

    /// Whether the guest has not executed anything yet.
    #[must_use]
    pub fn boots(&self) -> bool {
        self.machine.position() == Position::BOOT
    }

    /// The term in which the guest runs here if no arbiter gives one.
    #[must_use]
    pub fn term(&self) -> Term {
        self.store.as_ref().and_then(|(store, _)| store.term()).unwrap_or(Term(1))
    }

    /// Where its log begins, or goes on.
    #[must_use]
    pub fn start(&self, term: Term) -> SegmentStart {
        self.store.as_ref().map_or_else(|| SegmentStart::first(term), |(store, _)| store.next_start(term))
    }
}
