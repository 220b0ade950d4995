//! An arbiter in a file, for nodes that see the same file system: lock, read, write, fsync, rename.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use super::{Arbiter, ArbiterError, CasOutcome, Record, record::TEXT_MAX};

/// How often to look whether the lock is free, and how long to wait in between: together much longer than a change takes.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Keeps the record in a file; a file beside it, `PATH.lock`, orders those who change it.
#[derive(Debug)]
pub struct FileArbiter {
    path: PathBuf,
}

impl FileArbiter {
    /// The arbiter in this file, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> FileArbiter {
        FileArbiter { path: path.into() }
    }

    /// The path with `suffix` behind its name.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Takes the lock; it is released when the file is closed, also by the death of its process. A process that is only
    /// stopped keeps it, so nobody waits for it long.
    fn lock(&self) -> Result<File, ArbiterError> {
        let path = self.beside(".lock");
        let file = open(&path).map_err(io_error("opening", &path))?;
        for _ in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(io_error("locking", &path)(error)),
            }
        }
        Err(ArbiterError::Busy { file: self.path.clone() })
    }

    fn load(&self) -> Result<Option<Record>, ArbiterError> {
        let invalid = |problem| ArbiterError::Invalid { file: self.path.clone(), problem };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("opening", &self.path)(error)),
        };
        let mut json = Vec::new();
        file.take(TEXT_MAX + 1).read_to_end(&mut json).map_err(io_error("reading", &self.path))?;
        if json.len() as u64 > TEXT_MAX {
            return Err(invalid(format!("it is longer than {TEXT_MAX} bytes")));
        }
        Record::from_json(&json).map(Some).map_err(invalid)
    }

    /// Replaces the file's content; whatever a crash interrupts, the file holds the old or the new record.
    fn save(&self, record: &Record) -> Result<(), ArbiterError> {
        let temporary = self.beside(".tmp");
        let mut file = open(&temporary).map_err(io_error("opening", &temporary))?;
        file.set_len(0).map_err(io_error("emptying", &temporary))?;
        file.write_all(record.to_json().as_bytes()).map_err(io_error("writing", &temporary))?;
        file.sync_all().map_err(io_error("syncing", &temporary))?;
        fs::rename(&temporary, &self.path).map_err(io_error("replacing", &self.path))?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("syncing", dir))
    }
}

impl Arbiter for FileArbiter {
    fn read(&self) -> Result<Option<Record>, ArbiterError> {
        // No lock: a rename shows either the old or the new record.
        self.load()
    }

    fn compare_and_set(&self, expected: Option<&Record>, new: &Record) -> Result<CasOutcome, ArbiterError> {
        let _lock = self.lock()?;
        let present = self.load()?;
        if present.as_ref() != expected {
            return Ok(CasOutcome::Lost(present));
        }
        self.save(new)?;
        Ok(CasOutcome::Won)
    }
}

/// Opens or makes a file that only its owner can read.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn io_error(doing: &'static str, file: &Path) -> impl FnOnce(io::Error) -> ArbiterError {
    let file = file.to_owned();
    move |source| ArbiterError::Io { doing, file, source }
}
