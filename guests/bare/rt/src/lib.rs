//! What a bare guest needs to run: entry, console, clock, heap, arguments, and a way to stop.
//!
//! A guest is a binary that names its main function in [`entry!`]; everything else here is called from there.
#![no_std]

extern crate alloc;
// Nothing here calls these functions; the compiler does.
extern crate mem as _;

pub mod arguments;
pub mod console;
pub mod control;
mod entry;
pub mod heap;
pub mod port;
pub mod power;
pub mod ticker;

pub use console::Console;
pub use ticker::Ticker;

#[doc(hidden)]
pub use entry::start;
