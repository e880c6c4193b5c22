//! Segment files onto the disk: written under a temporary name, every file and folder synced, then renamed to the
//! final name and the parent synced. A segment folder with its final name is therefore whole; whether it counts is
//! the manifest's business.

use std::io;
use std::path::{Path, PathBuf};

use super::{Built, index};
use crate::StoreError;
use crate::disk::Disk;

/// Prefix of the folder's name while it is being written.
pub const TEMPORARY: &str = ".tmp-";

/// The crash points on the way; a seal and a merge have their own.
pub struct Points {
    pub before_fsync: &'static str,
    pub after_rename: &'static str,
}

pub const SEAL_POINTS: Points = Points { before_fsync: "before-fsync", after_rename: "after-segment-rename" };

/// `parent` is the table's folder, which exists. Returns the segment's folder.
pub fn publish(disk: &dyn Disk, parent: &Path, built: &Built) -> Result<PathBuf, StoreError> {
    place(disk, parent, &built.meta.ulid, &SEAL_POINTS, |temporary| {
        for file in &built.files {
            let path = temporary.join(&file.name);
            disk.write(&path, &file.bytes).map_err(StoreError::io("write", &path))?;
        }
        Ok(built.files.iter().map(|file| file.name.clone()).collect())
    })
}

/// Has `write` put files into a temporary folder (with room for an index) and name them, then makes them durable
/// under the final name. On error nothing stays behind, or only what the next start removes.
pub fn place(
    disk: &dyn Disk,
    parent: &Path,
    ulid: &str,
    points: &Points,
    write: impl FnOnce(&Path) -> Result<Vec<String>, StoreError>,
) -> Result<PathBuf, StoreError> {
    let folder = parent.join(ulid);
    let temporary = parent.join(format!("{TEMPORARY}{ulid}"));
    let steps = || -> Result<(), StoreError> {
        let writing = |error| StoreError::io("write segment", &folder)(error);
        disk.create_dir_all(&temporary.join(index::FOLDER)).map_err(writing)?;
        let files = write(&temporary)?;
        let last_steps = || -> io::Result<()> {
            disk.point(points.before_fsync)?;
            for file in &files {
                disk.sync_file(&temporary.join(file))?;
            }
            disk.sync_dir(&temporary.join(index::FOLDER))?;
            disk.sync_dir(&temporary)?;
            disk.rename(&temporary, &folder)?;
            disk.sync_dir(parent)?;
            disk.point(points.after_rename)
        };
        last_steps().map_err(writing)
    };
    steps().inspect_err(|_| {
        for leftover in [&temporary, &folder] {
            remove_leftover(disk, leftover);
        }
    })?;
    Ok(folder)
}

/// Best effort: what stays behind is an orphan and goes at the next start.
pub fn remove_leftover(disk: &dyn Disk, folder: &Path) {
    if let Err(error) = disk.remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove an unfinished segment");
    }
}
