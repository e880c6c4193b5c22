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
        "segment {segment} is damaged: {what}\nhint: restore its folder from a backup; until then its events cannot be read"
    )]
    Damaged { segment: String, what: String },
    /// A file operation failed. Nothing was committed; sealing again is safe.
    #[error("cannot {doing}: {source}{}", io_hint(source))]
    Io { doing: String, source: io::Error },
    /// Offsets do not continue what is held: events would be lost or stored twice.
    #[error(transparent)]
    Gap(#[from] event::Gap),
    #[error("manifest: {0}\nhint: nothing was committed; check the disk that holds manifest.db")]
    Manifest(#[from] rusqlite::Error),
    /// The manifest is not where this process left it.
    #[error("manifest is at commit {found}, expected {expected}\nhint: restart; the store continues from the manifest")]
    OutOfStep { expected: u64, found: u64 },
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
    /// For `map_err`: names what was being done, and to which file.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let doing = format!("{doing} {}", path.display());
        move |source| StoreError::Io { doing, source }
    }
}

fn io_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\nhint: free some space and start again; nothing was committed, and what was not is read again"
        }
        io::ErrorKind::PermissionDenied => "\nhint: the data directory must be writable by this user",
        _ => "",
    }
}
