//! The guest computer: a deterministic state machine.
//!
//! The same state and the same events at the same positions give the same state and the same effects. Everything that the
//! machine cannot compute for itself comes in through [`World::next`], and everything it says goes out through
//! [`World::effect`](Effects::effect). It knows no clock of the host, no socket, no file, no thread and no randomness.

pub mod boot;
mod config;
pub mod cpu;
pub mod devices;
mod dirty;
mod machine;
mod memory;
mod pages;
mod state;
mod trail;
mod world;
mod written;

pub use config::{ConfigError, MachineConfig};
pub use dirty::Consumer;
pub use machine::{Machine, RestoreError, RunError, Stop};
pub use memory::{Memory, MemoryError, Mmap};
pub use pages::PageSet;
pub use state::{MachineState, StateError};
pub use trail::Trail;
pub use world::{Effects, Here, Next, World};
pub use written::Written;
