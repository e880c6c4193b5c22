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

/// `parent` is the table's folder, which exists. Returns the segment's folder.
pub fn publish(disk: &dyn Disk, parent: &Path, built: &Built) -> Result<PathBuf, StoreError> {
    let folder = parent.join(&built.meta.ulid);
    let temporary = parent.join(format!("{TEMPORARY}{}", built.meta.ulid));
    let steps = || -> io::Result<()> {
        disk.create_dir_all(&temporary.join(index::FOLDER))?;
        for file in &built.files {
            disk.write(&temporary.join(&file.name), &file.bytes)?;
        }
        disk.point("before-fsync")?;
        for file in &built.files {
            disk.sync_file(&temporary.join(&file.name))?;
        }
        disk.sync_dir(&temporary.join(index::FOLDER))?;
        disk.sync_dir(&temporary)?;
        disk.rename(&temporary, &folder)?;
        disk.sync_dir(parent)?;
        disk.point("after-segment-rename")
    };
    steps().map_err(|error| {
        // Best effort: what stays behind is an orphan and goes at the next start.
        for leftover in [&temporary, &folder] {
            if let Err(error) = disk.remove_dir_all(leftover)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(folder = %leftover.display(), %error, "cannot remove an unfinished segment");
            }
        }
        StoreError::io("write segment", &folder)(error)
    })?;
    Ok(folder)
}
