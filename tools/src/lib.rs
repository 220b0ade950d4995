//! The parts of the `echovisor` program: its command line, one module per command, and what commands share.
//!
//! [`model`], [`switch`], [`lab`], [`svg`] and [`control`] know nothing of the commands, so that tests and benches use them too.

mod child;
pub mod cli;
pub mod commands;
pub mod control;
pub mod failure;
mod interruption;
pub mod key_file;
pub mod lab;
pub mod model;
pub mod node;
pub mod output;
pub mod policy;
mod reports;
pub mod sandbox;
mod snapshots;
mod summary;
pub mod svg;
pub mod switch;
pub mod values;
