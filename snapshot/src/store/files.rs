//! Files that survive a crash either whole or not at all, and that only their owner can read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// What the name of a file that is not yet complete ends with.
pub(super) const TEMPORARY: &str = "tmp";

/// Makes a directory that only its owner can enter, durably, and its parents. One that exists is fine.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        let parent = parent(path);
        make_dir(parent)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        sync_dir(parent)?;
    }
    Ok(())
}

/// The directory in which a path stands.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a directory's entries durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Opens a file for writing that only its owner can read; what it held is gone.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes a file so that at any time either all of `bytes` or what was there before stands under `path`. Returns the file,
/// open for writing at its end.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename));
    };
    let temporary = dir.join(format!("{}.{TEMPORARY}", name.to_string_lossy()));
    let mut file = create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(dir)?;
    Ok(file)
}
