//! From the machine's entry to the guest's main function, and the way out of a panic.

use crate::{control, heap, power, println};
use core::panic::PanicInfo;

/// Makes a function of type `fn() -> !` the guest's main function.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Where the machine enters. It leaves the stack as after a call, so this is an ordinary function.
        // SAFETY: the name is the entry point's, which exists once.
        #[unsafe(no_mangle)]
        extern "C" fn _start() -> ! {
            // SAFETY: this is the machine's entry, which happens once.
            unsafe { $crate::start($main) }
        }
    };
}

/// Prepares the run time and runs `main`.
///
/// # Safety
///
/// Called once, by [`entry!`], as the first thing of all.
pub unsafe fn start(main: fn() -> !) -> ! {
    control::check();
    // SAFETY: nothing has been allocated yet, and this function runs once.
    unsafe { heap::start() };
    main()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    power::off(power::PANICKED)
}

/// The precompiled `core` refers to the unwinder's personality; since panics abort, nothing calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
