//! Where the parts of a recording are, and who may open it.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    path::PathBuf,
};

use super::{error::StoreError, files, header::Header};

/// Where the parts of a recording are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

/// What a recording is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// The lock, held until this is dropped.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would not do: a process that another thread starts just now has it open, too, until it is executed.
        let _ = self.0.unlock();
    }
}

impl Layout {
    pub(crate) fn header(&self) -> PathBuf {
        self.dir.join("header")
    }

    pub(crate) fn writer(&self) -> PathBuf {
        self.dir.join("writer")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.dir.join("index")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.dir.join("segments")
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.segments().join(format!("{number:08}.seg"))
    }

    pub(crate) fn read_header(&self) -> Result<Header, StoreError> {
        if !self.header().exists() {
            return Err(StoreError::NoRecording { dir: self.dir.clone() });
        }
        Header::read(&self.header())
    }

    /// Takes the recording's lock; the system lets go of it when the process ends.
    pub(crate) fn lock(&self, access: Access) -> Result<Lock, StoreError> {
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

    /// Numbers of the segments' files.
    pub(crate) fn numbers(&self) -> Result<BTreeSet<u64>, StoreError> {
        let dir = self.segments();
        let mut numbers = BTreeSet::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
            let name = entry.map_err(StoreError::io("listing", &dir))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// Removes what a crash left of files that were never completed.
    pub(crate) fn remove_temporary(&self) -> Result<(), StoreError> {
        let dir = self.segments();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
            let path = entry.map_err(StoreError::io("listing", &dir))?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
            }
        }
        Ok(())
    }
}
