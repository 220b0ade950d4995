//! The state images in a recording's folder, one file per position.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use echovisor_event::Position;
use echovisor_snapshot::Image;

use crate::failure::Failure;

fn path(folder: &Path, position: Position) -> PathBuf {
    folder.join(format!("{:020}.image", position.0))
}

/// Writes an image, durably: after a crash it is there whole, or not at all.
///
/// # Errors
/// If the disk does not take it.
pub(crate) fn write(folder: &Path, image: &Image) -> Result<(), Failure> {
    let path = path(folder, image.position());
    let temporary = path.with_extension("temporary");
    let write = || {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&image.to_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        Failure::new(format!("cannot write {}", path.display()), "see whether the disk is full")
            .because(error)
    })
}

/// Reads the newest image at or before `position`.
///
/// # Errors
/// If there is none, or it is damaged.
pub(crate) fn read(folder: &Path, position: Position) -> Result<Image, Failure> {
    let lost = |error: std::io::Error| {
        Failure::new(format!("cannot read {}", folder.display()), "give the folder that `record --out` wrote")
            .because(error)
    };
    let mut newest: Option<(Position, PathBuf)> = None;
    for entry in fs::read_dir(folder).map_err(lost)? {
        let path = entry.map_err(lost)?.path();
        let at =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).map(Position);
        let is_image = path.extension().is_some_and(|extension| extension == "image");
        if let Some(at) = at.filter(|at| is_image && *at <= position)
            && newest.as_ref().is_none_or(|(newest, _)| at > *newest)
        {
            newest = Some((at, path));
        }
    }
    let Some((_, path)) = newest else {
        let what = format!("{} holds no state image at or before position {position}", folder.display());
        return Err(Failure::new(what, "the recording is incomplete; make it anew")
            .with_exit(crate::failure::Exit::Corrupt));
    };
    Ok(Image::from_bytes(&fs::read(&path).map_err(lost)?)?)
}
