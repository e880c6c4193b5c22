//! What can go wrong in the store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process owns the data directory; a caller may wait for it.
    #[error("data directory {} is in use by process {pid}\nhint: stop that process, or wait for it to end", dir.display())]
    Leased { dir: PathBuf, pid: u32 },
    /// Written by a later version.
    #[error("data directory {} has format {found}, this version reads up to {known}\nhint: run the newer version that wrote it", dir.display())]
    Newer { dir: PathBuf, found: u32, known: u32 },
    /// A committed segment is missing or not what was written.
    #[error(
        "segment {segment} is damaged: {what}\nhint: `stakeout verify` lists all damage; restore the folder from a backup, or set it aside with `stakeout verify --quarantine`"
    )]
    Damaged { segment: String, what: String },
    /// Rows from before a column existed, and nothing to compute it with.
    #[error(
        "segment {segment} was written before the columns {} existed\nhint: open the store with schemas that can compute them from `raw`",
        columns.join(", ")
    )]
    Older { segment: String, columns: Vec<String> },
    /// Long work was asked to stop; nothing has changed.
    #[error("stopped")]
    Stopped,
    /// The manifest cannot be read.
    #[error(
        "manifest {} is damaged: {what}\nhint: restore the data directory from a backup with `stakeout restore`; what was committed since is read again from its source",
        path.display()
    )]
    ManifestDamaged { path: PathBuf, what: String },
    /// A file operation failed. Nothing was committed; sealing again is safe.
    #[error("cannot {doing}: {source}{}", io_hint(source))]
    Io { doing: String, source: io::Error },
    /// Offsets do not continue what is held: events would be lost or stored twice.
    #[error(transparent)]
    Gap(#[from] event::Gap),
    #[error("manifest: {0}{hint}", hint = manifest_hint(.0))]
    Manifest(#[from] rusqlite::Error),
    /// The manifest is not where this process left it.
    #[error("manifest is at commit {found}, expected {expected}\nhint: restart; the store continues from the manifest")]
    OutOfStep { expected: u64, found: u64 },
    /// A segment that was to be replaced is in no commit.
    #[error("the manifest does not name segment {segment}\nhint: restart; the store continues from the manifest")]
    NotNamed { segment: String },
    #[error("{} is not a whole backup: {what}\nhint: a backup is a folder that `stakeout backup` has finished", dir.display())]
    NotABackup { dir: PathBuf, what: String },
    #[error("{} is not empty\nhint: name a folder that is empty or does not exist yet", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("cannot change the holds: {what}\nhint: {hint}")]
    Hold { what: String, hint: &'static str },
    #[error("the store was opened for reading only\nhint: only the process that holds the lease can write")]
    ReadOnly,
    #[error("unknown table `{0}`\nhint: stored tables are those of `schemas/`")]
    UnknownTable(String),
    #[error("rows for table `{table}` do not have its columns: {what}")]
    Schema { table: String, what: String },
    #[error("index: {0}")]
    Index(#[from] tantivy::TantivyError),
    #[error("parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl StoreError {
    /// Could the same call succeed later, once an operator has made room or given a right back? Nothing was committed.
    pub fn can_heal(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, PermissionDenied as Denied, ReadOnly,
        };
        match self {
            StoreError::Io { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded | PermissionDenied | ReadOnlyFilesystem)
            }
            StoreError::Manifest(error) => error.sqlite_error_code().is_some_and(|code| {
                matches!(code, DiskFull | ReadOnly | CannotOpen | Denied | DatabaseBusy | DatabaseLocked)
            }),
            _ => false,
        }
    }

    /// For `map_err`: names what was being done, and to which file.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let doing = format!("{doing} {}", path.display());
        move |source| StoreError::Io { doing, source }
    }
}

fn io_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\nhint: free some space (or set `store: {retention: …}`); nothing was committed, and what was not is kept or read again"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\nhint: the data directory must be writable by this user"
        }
        _ => "",
    }
}

fn manifest_hint(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly};
    match error.sqlite_error_code() {
        Some(DiskFull) => "\nhint: free some space; nothing was committed, and what was not is kept or read again",
        Some(ReadOnly | CannotOpen | PermissionDenied) => {
            "\nhint: manifest.db and its folder must be writable by this user"
        }
        _ => "\nhint: nothing was committed; check the disk that holds manifest.db",
    }
}
