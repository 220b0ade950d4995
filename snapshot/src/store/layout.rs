//! Where the parts of a store are, and who may open it.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use echovisor_event::Position;

use super::{
    error::StoreError,
    files::{self, TEMPORARY},
};

const PACK: &str = "pack";
const MANIFEST: &str = "snapshot";

/// Where the parts of a store are.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The lock, held until this is dropped.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would not do: a process that another thread starts just now has it open, too, until it is executed.
        let _ = self.0.unlock();
    }
}

impl Layout {
    pub(super) fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    pub(super) fn manifest(&self, position: Position) -> PathBuf {
        self.manifests().join(format!("{:020}.{MANIFEST}", position.0))
    }

    pub(super) fn packs(&self) -> PathBuf {
        self.dir.join("packs")
    }

    pub(super) fn pack(&self, number: u64) -> PathBuf {
        self.packs().join(format!("{number:08}.{PACK}"))
    }

    pub(super) fn index(&self) -> PathBuf {
        self.dir.join("index")
    }

    /// Makes the directories, where they are not there.
    pub(super) fn make(&self) -> Result<(), StoreError> {
        for dir in [self.dir.clone(), self.packs(), self.manifests()] {
            files::make_dir(&dir).map_err(StoreError::io("making", &dir))?;
        }
        Ok(())
    }

    /// Takes the store's lock; the system lets go of it when the process ends.
    pub(super) fn lock(&self, access: Access) -> Result<Lock, StoreError> {
        let path = self.dir.join("lock");
        let file = files::create(&path).map_err(StoreError::io("opening", &path))?;
        let taken = match access {
            Access::Read => file.try_lock_shared(),
            Access::Write => file.try_lock(),
        };
        match taken {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: self.dir.clone() }),
            Err(TryLockError::Error(source)) => Err(StoreError::io("locking", path)(source)),
        }
    }

    /// Numbers of the packs.
    pub(super) fn pack_numbers(&self) -> Result<BTreeSet<u64>, StoreError> {
        numbers(&self.packs(), PACK)
    }

    /// Positions of the snapshots that have a manifest, whatever is in it.
    pub(super) fn positions(&self) -> Result<BTreeSet<Position>, StoreError> {
        Ok(numbers(&self.manifests(), MANIFEST)?.into_iter().map(Position).collect())
    }

    /// Removes what a crash left of files that were never completed.
    pub(super) fn remove_temporary(&self) -> Result<(), StoreError> {
        for dir in [self.packs(), self.manifests()] {
            for path in entries(&dir)? {
                if path.extension().is_some_and(|extension| extension == TEMPORARY) {
                    fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
                }
            }
        }
        Ok(())
    }
}

/// The numbers in `dir` that are names of files with this extension.
fn numbers(dir: &Path, extension: &str) -> Result<BTreeSet<u64>, StoreError> {
    let mut numbers = BTreeSet::new();
    for path in entries(dir)? {
        if path.extension().is_some_and(|found| found == extension) {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            numbers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
        }
    }
    Ok(numbers)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listing = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_, io::Error>>();
    listing().map_err(StoreError::io("listing", dir))
}
