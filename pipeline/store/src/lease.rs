//! One process owns a data directory: an exclusive lock on the file `lease`, which the system releases when
//! the process ends, however it ends. The owner's pid is written inside, for messages only.
//!
//! Processes beside the owner share a lock on the file `readers` while they read: the owner removes the folders of
//! segments only when it has that lock alone, so that nothing vanishes under a query or a backup.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::StoreError;

/// The process that owns the directory, if one does.
pub fn owner(dir: &Path) -> Option<u32> {
    let mut file = File::open(dir.join("lease")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).ok()?;
            Some(pid.trim().parse().unwrap_or(0))
        }
        _ => None,
    }
}

/// The `readers` lock, shared or alone; released when this value goes.
#[derive(Debug)]
pub struct Readers {
    _file: File,
}

impl Readers {
    /// Waits while the owner removes something, which takes moments.
    pub fn join(dir: &Path) -> Result<Readers, StoreError> {
        let (file, path) = Readers::file(dir)?;
        file.lock_shared().map_err(StoreError::io("lock", &path))?;
        Ok(Readers { _file: file })
    }

    /// `None`: somebody reads.
    pub fn exclude(dir: &Path) -> Result<Option<Readers>, StoreError> {
        let (file, path) = Readers::file(dir)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Readers { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
        }
    }

    /// Opened for reading if it is there: a reader may have no right to write.
    fn file(dir: &Path) -> Result<(File, std::path::PathBuf), StoreError> {
        let path = dir.join("readers");
        let opened = File::open(&path).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                File::options().read(true).write(true).create(true).truncate(false).open(&path)
            }
            _ => Err(error),
        });
        Ok((opened.map_err(StoreError::io("open", &path))?, path))
    }
}

/// Held as long as this value lives.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

impl Lease {
    /// [`StoreError::Leased`] if another process has it.
    pub fn take(dir: &Path) -> Result<Lease, StoreError> {
        let path = dir.join("lease");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(StoreError::io("read", &path))?;
                return Err(StoreError::Leased { dir: dir.to_owned(), pid: pid.trim().parse().unwrap_or(0) });
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
        }
        let pid = std::process::id().to_string();
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
        if let Err(error) = written {
            // It is for messages only, and a full disk must not keep a process from starting.
            tracing::warn!(file = %path.display(), %error, "cannot write the owner's process id");
        }
        Ok(Lease { _file: file })
    }
}
