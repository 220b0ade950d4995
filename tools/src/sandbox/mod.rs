//! Least privilege: the system calls that a node's threads may make, checked by the kernel (seccomp).
//!
//! A node sets itself up without bounds: it opens its network, its arbiter, its log, KVM. Then, before anybody has told it
//! anything, [`confine`] puts all threads there are (`node.rs`) under one filter, and every thread that comes later inherits it:
//! none escapes. The guest's thread, which works on what a hostile guest wrote, [narrows itself](confine_guest) further
//! once its virtual machine is made.
//!
//! A call on no list ends the process, with the name of the call on stderr: what no part of this program ever does is done
//! by somebody who took it over, or is a mistake in a list, and then the other node takes over. (Where a thread holds signals
//! back, as the C library does while it starts another, it dies without a word.) `--no-seccomp` runs without filters.

mod guest;
mod node;
mod rule;
mod violation;

use std::sync::atomic::{AtomicBool, Ordering};

use echovisor_log::link::boot_time;
use seccompiler::{SeccompAction, apply_filter, apply_filter_all_threads};

use self::rule::Rule;
use crate::failure::Failure;

/// Whether a filter is in force, so that the guest's thread is to have its own.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[error("the kernel takes no seccomp filter")]
pub struct SandboxError(#[from] seccompiler::Error);

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Failure {
        let hint = "use a kernel with CONFIG_SECCOMP_FILTER, or see what --no-seccomp says";
        Failure::new(error.to_string(), hint).because(error.0)
    }
}

/// Puts this process, with all the threads that it has and will have, under the filter of a node; unless `off`.
///
/// # Errors
/// If the kernel has no seccomp.
pub fn confine(off: bool) -> Result<(), Failure> {
    if off {
        tracing::warn!("every system call is allowed: --no-seccomp is for debugging");
        return Ok(());
    }
    violation::report();
    // The first reading of this clock looks for the vDSO, in ways that differ between kernels.
    let _ = boot_time();
    for program in programs(&node::allowed(), node::REFUSED)? {
        apply_filter_all_threads(&program).map_err(SandboxError)?;
    }
    CONFINED.store(true, Ordering::Release);
    Ok(())
}

/// Puts the calling thread, which runs the guest, under its own filter, if the process is confined at all. Its virtual machine
/// must have been made.
///
/// # Errors
/// If the kernel has no seccomp.
pub fn confine_guest() -> Result<(), SandboxError> {
    if CONFINED.load(Ordering::Acquire) {
        for program in programs(&guest::allowed(), guest::REFUSED)? {
            apply_filter(&program)?;
        }
        violation::thread_is("guest's thread");
    }
    Ok(())
}

/// A filter as the kernel takes it, in two programs, of which the stricter one decides: what is on no list is a violation;
/// what is `refused` fails with the error beside it, because a library asks for it and can do without.
fn programs(
    allowed: &[Rule],
    refused: &[(syscalls::Sysno, i32)],
) -> Result<Vec<seccompiler::BpfProgram>, SandboxError> {
    let mut programs = vec![rule::compile(allowed, SeccompAction::Trap, SeccompAction::Allow)?];
    for (call, error) in refused {
        let refuse = SeccompAction::Errno(*error as u32);
        programs.push(rule::compile(&[Rule::any(*call)], SeccompAction::Allow, refuse)?);
    }
    // The list comes last: it may forbid to install any more.
    programs.reverse();
    Ok(programs)
}
