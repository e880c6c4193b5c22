//! One process owns a data directory: an exclusive lock on the file `lease`, which the system releases when
//! the process ends, however it ends. The owner's pid is written inside, for messages only.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::StoreError;

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
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(StoreError::io("write", &path))?;
        Ok(Lease { _file: file })
    }
}
