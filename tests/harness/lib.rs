//! What the end-to-end scenarios stand on: namespaces, nodes, clients, and a client that checks every reply.
//!
//! A test calls [`scenario`], which gives it a world of its own: network, mounts and processes in new namespaces, a folder
//! for logs and recordings. Nothing outlives it. It works as root, and as an ordinary user where the kernel lets one make
//! a user namespace.
//!
//! ```text
//!      client 10.0.0.1          guest 10.0.0.2, on one of the two
//!          |                    |                        |
//!          |              TAP in `primary`         TAP in `secondary`
//!          |                    |  \________link_________/  |
//!          +------ bridge ------+---------------------------+
//! ```
//!
//! Waiting is always for a condition ([`wait_for`]), bounded, and never for time to pass.
//!
//! Some scenarios can be made larger, by numbers in the environment ([`size`]):
//!
//! | variable | what it counts | default |
//! |---|---|---|
//! | `ECHOVISOR_KILLS` | kills, or stops, of a node under load, in each test that kills or stops | 3 |
//! | `ECHOVISOR_FAULTS` | every other fault | 1 |
//! | `ECHOVISOR_POWER_LOSSES` | losses of power, in each test of them | 2 |
//! | `ECHOVISOR_REQUESTS` | requests of one run of redis-benchmark | 5000 |
//! | `ECHOVISOR_RUNS` | recordings of the same load | 1 |
//! | `ECHOVISOR_NETEM` | none: what netem does to packets on the client's cable and the link, as in `delay 5ms loss 1%` | nothing |
//! | `ECHOVISOR_SEED` | none: it repeats a run's random numbers | random |

mod account;
mod capture;
mod clients;
pub mod elf;
mod filling;
mod freeze;
mod lab;
mod load;
mod namespace;
mod node;
mod process;
mod program;
mod scene;
pub mod scripted;
mod size;
mod wait;

pub use account::Account;
pub use capture::{Capture, Frame};
pub use clients::{Measured, Replayed};
pub use filling::Filling;
pub use freeze::Frozen;
pub use lab::{CLIENT, GUEST, Lab, Site, key};
pub use load::{Load, Verdict};
pub use namespace::{Namespace, Traffic};
pub use node::{Guest, KV, Node, Part, Role, Status};
pub use process::{Finished, Process};
pub use program::{cargo, echovisor, program};
pub use scene::{Scene, SmallDisk, scenario};
pub use size::size;
pub use wait::{LIMIT, wait_for};
