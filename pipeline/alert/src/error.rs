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
