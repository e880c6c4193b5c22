//! Copies of files and folders that are whole and durable when the call returns.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// All regular files below `dir`, relative to it, in order.
pub fn tree(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(dir.join(&folder))? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, folder.join(entry.file_name()));
            match (kind.is_dir(), kind.is_file()) {
                (true, _) => folders.push(path),
                (_, true) => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Copies what an open file holds now, whatever its name has become. Returns the bytes.
pub fn copy_open(mut from: &File, to: &Path) -> io::Result<u64> {
    create_parent(to)?;
    let mut file = File::create_new(to)?;
    // Before the content: what only its owner may read stays so.
    file.set_permissions(from.metadata()?.permissions())?;
    let bytes = io::copy(&mut from, &mut file)?;
    file.sync_all()?;
    Ok(bytes)
}

/// Copies a file, or gives it a second name where `link` asks for it and the file system can.
pub fn copy(from: &Path, to: &Path, link: bool) -> io::Result<u64> {
    create_parent(to)?;
    if link && fs::hard_link(from, to).is_ok() {
        return Ok(fs::metadata(to)?.len());
    }
    copy_open(&File::open(from)?, to)
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Makes the names in `dir` and everything below durable.
pub fn sync_names(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_names(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Absent or without entries.
pub fn is_vacant(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
