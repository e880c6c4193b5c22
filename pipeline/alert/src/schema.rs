//! `alerts.db`: its tables, its format version, how it is opened and how an older format is brought up to this one. SQLite in WAL mode with `synchronous=FULL`: a
//! committed transaction survives power loss, and readers and delivery threads work beside the recorder.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::error::{Error, Result};

/// Raised with every change of the tables.
const FORMAT: i64 = 2;
/// Transactions here take milliseconds; whoever waits so long waits for a stuck disk.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// `last` and `first` are event time, `opened`, `updated`, `recorded`, `created` and `finished` wall clock, all in
/// microseconds. `severity` counts from 1 (informational) to 5 (critical), as in OCSF. `entity` is JSON: pairs of column
/// and value. `standing` is 0 provisional, 1 confirmed, 2 retracted; `standings` has a row for each that a finding had.
/// An incident is `retracted` when all of its findings are, and `closed` once nothing can join it any more; `quiet` says
/// why it has not asked for a page (`learning`, `historical`).
const TABLES: &str = "
CREATE TABLE format (version INTEGER NOT NULL);
INSERT INTO format VALUES (2);

CREATE TABLE findings (
    id TEXT NOT NULL, origin TEXT NOT NULL, incident TEXT NOT NULL, rule TEXT NOT NULL, severity INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, recorded INTEGER NOT NULL, finding TEXT NOT NULL,
    standing INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (id, origin)
) WITHOUT ROWID;
CREATE INDEX findings_incident ON findings (incident, standing);
CREATE INDEX findings_provisional ON findings (rule) WHERE standing = 0;
CREATE INDEX findings_last ON findings (last);

CREATE TABLE incidents (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, rule TEXT NOT NULL, origin TEXT NOT NULL, entity TEXT NOT NULL,
    episode INTEGER NOT NULL, title TEXT NOT NULL, summary TEXT NOT NULL, severity INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, findings INTEGER NOT NULL,
    opened INTEGER NOT NULL, updated INTEGER NOT NULL,
    flooded INTEGER NOT NULL DEFAULT 0,
    merged_into TEXT,
    late INTEGER NOT NULL DEFAULT 0, quiet TEXT, retracted INTEGER, closed INTEGER
);
CREATE INDEX incidents_key ON incidents (rule, origin, entity, last);
CREATE INDEX incidents_last ON incidents (last);
CREATE INDEX incidents_merged ON incidents (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX incidents_retracted ON incidents (seq) WHERE retracted IS NOT NULL AND closed IS NULL;

CREATE TABLE standings (
    seq INTEGER PRIMARY KEY, finding TEXT NOT NULL, origin TEXT NOT NULL, standing INTEGER NOT NULL,
    recorded INTEGER NOT NULL, last INTEGER NOT NULL, events INTEGER NOT NULL
);
CREATE INDEX standings_finding ON standings (finding, origin);

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

/// Indexes that came later: every format can do without.
const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS outbox_delivered ON outbox (receiver, finished) WHERE state = 'delivered';
";

/// From format 1, which knew no standing: its findings are what their JSON says, confirmed unless it says otherwise.
const FROM_1: &str = "
ALTER TABLE findings ADD COLUMN standing INTEGER NOT NULL DEFAULT 1;
UPDATE findings SET standing = CASE json_extract(finding, '$.standing')
                                   WHEN 'provisional' THEN 0 WHEN 'retracted' THEN 2 ELSE 1 END
 WHERE json_extract(finding, '$.standing') IN ('provisional', 'retracted');
DROP INDEX findings_incident;
CREATE INDEX findings_incident ON findings (incident, standing);
CREATE INDEX findings_provisional ON findings (rule) WHERE standing = 0;
ALTER TABLE incidents ADD COLUMN late INTEGER NOT NULL DEFAULT 0;
ALTER TABLE incidents ADD COLUMN quiet TEXT;
ALTER TABLE incidents ADD COLUMN retracted INTEGER;
ALTER TABLE incidents ADD COLUMN closed INTEGER;
CREATE INDEX incidents_merged ON incidents (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX incidents_retracted ON incidents (seq) WHERE retracted IS NOT NULL AND closed IS NULL;
CREATE TABLE standings (
    seq INTEGER PRIMARY KEY, finding TEXT NOT NULL, origin TEXT NOT NULL, standing INTEGER NOT NULL,
    recorded INTEGER NOT NULL, last INTEGER NOT NULL, events INTEGER NOT NULL
);
CREATE INDEX standings_finding ON standings (finding, origin);
INSERT INTO standings (finding, origin, standing, recorded, last, events)
SELECT id, origin, standing, recorded, last, coalesce(json_extract(finding, '$.evidence.count'), 0)
  FROM findings ORDER BY recorded, id;
INSERT INTO format VALUES (2);
";

/// What a reader puts in front of the tables of format 1, so that it reads them like its own without changing them.
const LIKE_2: &str = "
CREATE TEMP VIEW findings AS SELECT *, 1 AS standing FROM main.findings;
CREATE TEMP VIEW incidents AS
    SELECT *, 0 AS late, NULL AS quiet, NULL AS retracted, NULL AS closed FROM main.incidents;
CREATE TEMP VIEW standings AS
    SELECT 0 AS seq, id AS finding, origin, 1 AS standing, recorded, last,
           coalesce(json_extract(finding, '$.evidence.count'), 0) AS events
      FROM main.findings;
";

/// Creates the database when there is none, and brings an older one up to this format.
pub(crate) fn open_writer(path: &Path) -> Result<Connection> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let mut db = Connection::open(path).map_err(failed)?;
    configure(&db).map_err(failed)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    match version(&tx).map_err(failed)? {
        None => tx.execute_batch(TABLES).map_err(failed)?,
        Some(1) => {
            tracing::info!(path = %path.display(), "alerts.db is brought up to format {FORMAT}");
            tx.execute_batch(FROM_1).map_err(failed)?;
        }
        Some(_) => {}
    }
    tx.execute_batch(INDEXES).map_err(failed)?;
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
    if check_version(&db, path)? == 1 {
        db.execute_batch(LIKE_2).map_err(failed)?;
    }
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

fn check_version(db: &Connection, path: &Path) -> Result<i64> {
    let found = version(db).map_err(|source| Error::Open { path: path.to_owned(), source })?.unwrap_or(0);
    if found > FORMAT {
        return Err(Error::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    Ok(found)
}
