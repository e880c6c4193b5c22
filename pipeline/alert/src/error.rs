//! What can go wrong with `alerts.db` and its configuration. A pager that fails is not an error: it is a row's state.

use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("alerts database: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("cannot open the alerts database {}: {source}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error(
        "{} has format {found}, this version knows formats up to {known}\n\
         hint: run the newer stakeout that wrote it, or move the file away to start without its history",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("no alerts database at {}\nhint: `stakeout run` or `stakeout import` creates it", .0.display())]
    Missing(PathBuf),
    /// Every mistake of the configuration, each with its hint.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    #[error("alerts.db holds a {what} that cannot be read: {source}")]
    Unreadable { what: &'static str, source: serde_json::Error },
    #[error("cannot start the delivery thread of receiver `{receiver}`: {source}")]
    Thread { receiver: String, source: std::io::Error },
}

impl Error {
    /// Could the same call succeed later, once an operator has made room or given a right back? Nothing was recorded.
    pub fn can_heal(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly};
        let Error::Database(error) = self else { return false };
        error
            .sqlite_error_code()
            .is_some_and(|code| matches!(code, DiskFull | ReadOnly | DatabaseBusy | DatabaseLocked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_can_heal_and_a_mistake_cannot() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (x); PRAGMA max_page_count = 2").unwrap();
        let full = db.execute("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap_err();
        assert!(Error::from(full).can_heal());
        let mistake = db.execute("INSERT INTO u VALUES (1)", []).unwrap_err();
        assert!(!Error::from(mistake).can_heal());
    }
}
