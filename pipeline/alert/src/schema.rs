//! `alerts.db`: its tables, its format version and how it is opened. SQLite in WAL mode with `synchronous=FULL`: a
//! committed transaction survives power loss, and readers and delivery threads work beside the recorder.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::error::{Error, Result};

/// Raised with every change of the tables.
const FORMAT: i64 = 1;
/// Transactions here take milliseconds; whoever waits so long waits for a stuck disk.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// `last` and `first` are event time, `opened`, `updated`, `recorded`, `created` and `finished` wall clock, all in
/// microseconds. `severity` counts from 1 (informational) to 5 (critical), as in OCSF. `entity` is JSON: pairs of column
/// and value.
const TABLES: &str = "
CREATE TABLE format (version INTEGER NOT NULL);
INSERT INTO format VALUES (1);

CREATE TABLE findings (
    id TEXT NOT NULL, origin TEXT NOT NULL, incident TEXT NOT NULL, rule TEXT NOT NULL, severity INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, recorded INTEGER NOT NULL, finding TEXT NOT NULL,
    PRIMARY KEY (id, origin)
) WITHOUT ROWID;
CREATE INDEX findings_incident ON findings (incident);
CREATE INDEX findings_last ON findings (last);

CREATE TABLE incidents (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, rule TEXT NOT NULL, origin TEXT NOT NULL, entity TEXT NOT NULL,
    episode INTEGER NOT NULL, title TEXT NOT NULL, summary TEXT NOT NULL, severity INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, findings INTEGER NOT NULL,
    opened INTEGER NOT NULL, updated INTEGER NOT NULL,
    flooded INTEGER NOT NULL DEFAULT 0,
    merged_into TEXT
);
CREATE INDEX incidents_key ON incidents (rule, origin, entity, last);
CREATE INDEX incidents_last ON incidents (last);

CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, receiver TEXT NOT NULL, incident TEXT NOT NULL,
    created INTEGER NOT NULL, payload TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0, next_attempt INTEGER NOT NULL DEFAULT 0,
    finished INTEGER, last_error TEXT
);
CREATE INDEX outbox_pending ON outbox (receiver, seq) WHERE state = 'pending';
CREATE INDEX outbox_order ON outbox (receiver, incident, seq) WHERE state = 'pending';
CREATE INDEX outbox_incident ON outbox (incident);

CREATE TABLE attempts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, outbox INTEGER NOT NULL, time INTEGER NOT NULL,
    outcome TEXT NOT NULL, status INTEGER, error TEXT, latency_us INTEGER
);
CREATE INDEX attempts_outbox ON attempts (outbox);

CREATE TABLE hours (rule TEXT NOT NULL, hour INTEGER NOT NULL, incidents INTEGER NOT NULL, PRIMARY KEY (rule, hour));

CREATE TABLE frontier_offsets (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
);
CREATE TABLE frontier_boundaries (rule TEXT PRIMARY KEY, boundary INTEGER NOT NULL);
";

/// Creates the database when there is none.
pub(crate) fn open_writer(path: &Path) -> Result<Connection> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let mut db = Connection::open(path).map_err(failed)?;
    configure(&db).map_err(failed)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if version(&tx).map_err(failed)?.is_none() {
        tx.execute_batch(TABLES).map_err(failed)?;
    }
    tx.commit().map_err(failed)?;
    check_version(&db, path)?;
    Ok(db)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection> {
    if !path.exists() {
        return Err(Error::Missing(path.to_owned()));
    }
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    check_version(&db, path)?;
    Ok(db)
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")
}

fn version(db: &Connection) -> rusqlite::Result<Option<i64>> {
    let exists = db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'format'")?.exists([])?;
    if !exists {
        return Ok(None);
    }
    db.query_row("SELECT max(version) FROM format", [], |row| row.get(0)).optional().map(Option::flatten)
}

fn check_version(db: &Connection, path: &Path) -> Result<()> {
    let found = version(db).map_err(|source| Error::Open { path: path.to_owned(), source })?.unwrap_or(0);
    if found > FORMAT {
        return Err(Error::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    Ok(())
}
