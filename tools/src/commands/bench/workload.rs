//! What the guest is asked to do meanwhile.

use clap::ValueEnum;
use serde::Serialize;

use super::load::{Bulk, Compute, Idle, Load, OpenLoop, Pages, RedisBenchmark};
use crate::{failure::Failure, lab};

/// A guest and its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Workload {
    /// SET and GET at a fixed rate, whether or not the earlier ones are answered
    Rate,
    /// redis-benchmark, GET and SET 9 to 1
    Kv,
    /// redis-benchmark, SET of random keys in a large working set
    KvWrite,
    /// redis-benchmark, one client that waits for each reply; GET and SET 9 to 1
    Lone,
    /// wrk, a page over HTTP
    Http,
    /// Nothing
    Idle,
    /// A guest that computes, for about a second without an exit
    Compute,
    /// SET of large random values
    Receive,
    /// GET of large random values
    Send,
}

/// What runs in the machine.
pub(super) struct Guest {
    pub(super) name: &'static str,
    /// What it is told besides its address.
    pub(super) arguments: &'static str,
    pub(super) memory: &'static str,
    /// The port at which it answers when it is up.
    pub(super) port: u16,
}

const KV: Guest = Guest { name: "kv", arguments: "", memory: "64M", port: 6379 };
const LARGE_KV: Guest = Guest { memory: "256M", ..KV };
/// It makes an exit about once in a second.
const SPIN: Guest = Guest { name: "spin", arguments: " spin=100000000", memory: "64M", port: 7 };

impl Workload {
    /// All of them.
    pub(super) const ALL: [Workload; 9] = [
        Workload::Rate,
        Workload::Kv,
        Workload::KvWrite,
        Workload::Lone,
        Workload::Http,
        Workload::Idle,
        Workload::Compute,
        Workload::Receive,
        Workload::Send,
    ];

    /// As it stands on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Workload::Rate => "rate",
            Workload::Kv => "kv",
            Workload::KvWrite => "kv-write",
            Workload::Lone => "lone",
            Workload::Http => "http",
            Workload::Idle => "idle",
            Workload::Compute => "compute",
            Workload::Receive => "receive",
            Workload::Send => "send",
        }
    }

    /// The guest.
    pub(super) fn guest(self) -> Guest {
        match self {
            Workload::KvWrite => LARGE_KV,
            Workload::Compute => SPIN,
            _ => KV,
        }
    }

    /// The load.
    pub(super) fn load(self) -> Box<dyn Load> {
        match self {
            Workload::Rate => Box::new(OpenLoop::default()),
            Workload::Kv => Box::new(RedisBenchmark::reads()),
            Workload::KvWrite => Box::new(RedisBenchmark::writes()),
            Workload::Lone => Box::new(RedisBenchmark::lone()),
            Workload::Http => Box::new(Pages),
            Workload::Idle => Box::new(Idle),
            Workload::Compute => Box::new(Compute::default()),
            Workload::Receive => Box::new(Bulk::receive()),
            Workload::Send => Box::new(Bulk::send()),
        }
    }

    /// Sees whether the clients of this load are installed.
    ///
    /// # Errors
    /// If one is not.
    pub(super) fn require_programs(self) -> Result<(), Failure> {
        let client = match self {
            Workload::Kv | Workload::KvWrite | Workload::Lone => "redis-benchmark",
            Workload::Http => "wrk",
            _ => return Ok(()),
        };
        let found = lab::program(client).map(|_| ());
        found.map_err(|error| {
            let package = lab::package(client).unwrap_or(client);
            let hint = format!(
                "apt-get install {package}, or leave that workload out: --workload rate,idle needs no such program"
            );
            Failure::new(format!("the workload `{}` needs {client}", self.name()), hint).because(error)
        })
    }
}
