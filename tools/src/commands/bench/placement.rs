//! Which processors who runs on.

use std::{fmt, io, os::unix::process::CommandExt, process::Command};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// With fewer processors a share would be less than one for each.
const PARTIES: usize = 3;

/// Processors of this process's own for primary, secondary and clients, where there are enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Everybody runs anywhere.
    Shared {
        /// How many processors there are.
        processors: usize,
    },
    /// To each its own.
    Apart { primary: Vec<usize>, secondary: Vec<usize>, clients: Vec<usize> },
}

impl Placement {
    /// On the processors that this process may use.
    pub(super) fn here() -> io::Result<Placement> {
        let allowed = sched_getaffinity(None)?;
        Ok(Placement::on((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()))
    }

    fn on(processors: Vec<usize>) -> Placement {
        if processors.len() < PARTIES {
            return Placement::Shared { processors: processors.len() };
        }
        let (primary, others) = processors.split_at(processors.len() / PARTIES);
        let (secondary, clients) = others.split_at(primary.len());
        let [primary, secondary, clients] = [primary, secondary, clients].map(<[usize]>::to_vec);
        Placement::Apart { primary, secondary, clients }
    }

    /// Has the primary, or else the secondary, run on its own processors.
    pub(super) fn pin(&self, command: &mut Command, is_primary: bool) {
        if let Placement::Apart { primary, secondary, .. } = self {
            let set = set(if is_primary { primary } else { secondary });
            // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
            unsafe {
                command.pre_exec(move || Ok(sched_setaffinity(None, &set)?));
            }
        }
    }

    /// Has this thread run on the processors of the primary, or else of the secondary.
    pub(super) fn pin_thread(&self, is_primary: bool) -> io::Result<()> {
        match self {
            Placement::Shared { .. } => Ok(()),
            Placement::Apart { primary, secondary, .. } => {
                Ok(sched_setaffinity(None, &set(if is_primary { primary } else { secondary }))?)
            }
        }
    }

    /// Has this thread run on one of the primary's processors: the first, or else the last.
    pub(super) fn pin_thread_to_one(&self, first: bool) -> io::Result<()> {
        self.pin_thread(true)?;
        let allowed = sched_getaffinity(None)?;
        let mut processors = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        match if first { processors.next() } else { processors.next_back() } {
            Some(processor) => Ok(sched_setaffinity(None, &set(&[processor]))?),
            None => Ok(()),
        }
    }

    /// Has this thread, and the clients that it starts, run on the processors of the clients.
    pub(super) fn pin_clients(&self) -> io::Result<()> {
        match self {
            Placement::Shared { .. } => Ok(()),
            Placement::Apart { clients, .. } => Ok(sched_setaffinity(None, &set(clients))?),
        }
    }
}

fn set(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor));
    set
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Shared { processors } => {
                write!(
                    f,
                    "Nodes and clients share {processors} processors, so each slows the others down: read the ratios."
                )
            }
            Placement::Apart { primary, secondary, clients } => {
                write!(
                    f,
                    "The primary runs on processors {primary:?}, the secondary on {secondary:?}, clients on {clients:?}."
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_dealt_out_where_there_are_enough() {
        assert_eq!(Placement::on(vec![0, 1]), Placement::Shared { processors: 2 });
        let apart = |primary: &[usize], secondary: &[usize], clients: &[usize]| Placement::Apart {
            primary: primary.to_vec(),
            secondary: secondary.to_vec(),
            clients: clients.to_vec(),
        };
        assert_eq!(Placement::on(vec![2, 5, 7]), apart(&[2], &[5], &[7]));
        assert_eq!(Placement::on((0..8).collect()), apart(&[0, 1], &[2, 3], &[4, 5, 6, 7]));
    }

    #[test]
    fn this_process_has_processors() {
        let placement = Placement::here().expect("the kernel tells");
        assert!(placement != Placement::Shared { processors: 0 });
    }
}
