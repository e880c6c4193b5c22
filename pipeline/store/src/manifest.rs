//! `manifest.db`: which segments exist, the next offset per partition, the watermarks. The only truth: a segment
//! that it does not name does not exist. Every commit is one SQLite transaction with `synchronous=FULL`; in WAL
//! mode readers of other processes never wait for the writer.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use event::{Offsets, Ranges, Source, Watermarks};
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use crate::StoreError;
use crate::holds::{self, Hold};
use crate::segment::Span;

/// Raised whenever an older version could misread what this one writes. 1: no legal holds. A directory of an older
/// format is upgraded when its owner opens it.
pub const FORMAT: u32 = 2;

/// How long a reader waits for a writer's short transaction (and the reverse) before it gives up.
pub const BUSY_WAIT: Duration = Duration::from_secs(10);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS segments (
        ulid TEXT PRIMARY KEY, table_name TEXT NOT NULL, content TEXT NOT NULL, sequence INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS offsets (
        topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS watermarks (source TEXT PRIMARY KEY, micros INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS commits (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL);
    INSERT OR IGNORE INTO commits VALUES (1, 0);
";

/// Since format 2. `released` is when, by whom in `released_by`.
const HOLDS: &str = "
    CREATE TABLE IF NOT EXISTS holds (
        id INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL,
        author TEXT NOT NULL, created INTEGER NOT NULL, released INTEGER, released_by TEXT
    );
";

/// A segment as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub ulid: String,
    pub table: String,
    /// BLAKE3 of the segment's `meta.json`, which holds the hashes of its other files.
    pub content: String,
}

/// All of it, as of one transaction.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub sequence: u64,
    /// By ULID, which is the order of commits.
    pub segments: Vec<Named>,
    pub offsets: Offsets,
    pub watermarks: Watermarks,
}

pub struct Manifest {
    db: Connection,
}

impl Manifest {
    /// For the owner. Creates it if missing, upgrades it if an older version wrote it.
    pub fn open(dir: &Path) -> Result<Manifest, StoreError> {
        let path = dir.join(FILE);
        let readable = |error| unreadable(&path, error);
        let mut db = Connection::open(&path).map_err(readable)?;
        db.busy_timeout(BUSY_WAIT)?;
        refuse_newer(&db, dir)?;
        db.pragma_update(None, "journal_mode", "wal").map_err(readable)?;
        db.pragma_update(None, "synchronous", "full")?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let format: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if format < FORMAT {
            tx.execute_batch(TABLES)?;
            tx.execute_batch(HOLDS)?;
            tx.pragma_update(None, "user_version", FORMAT)?;
        }
        tx.commit()?;
        if format > 0 && format < FORMAT {
            tracing::info!(from = format, to = FORMAT, "upgraded the manifest");
        }
        Ok(Manifest { db })
    }

    /// For a process beside the owner: fails if there is no manifest.
    pub fn open_read_only(dir: &Path) -> Result<Manifest, StoreError> {
        let manifest = Manifest::open_beside(dir)?;
        manifest.db.pragma_update(None, "query_only", true)?;
        Ok(manifest)
    }

    /// For short writes beside the owner (holds).
    pub fn open_beside(dir: &Path) -> Result<Manifest, StoreError> {
        let path = dir.join(FILE);
        // Reading a WAL database needs its shared-memory file, hence the write flag.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags).map_err(|error| unreadable(&path, error))?;
        db.busy_timeout(BUSY_WAIT)?;
        refuse_newer(&db, dir)?;
        db.pragma_update(None, "synchronous", "full")?;
        Ok(Manifest { db })
    }

    /// Differs from its last value if another connection has committed since.
    pub fn version(&self) -> Result<i64, StoreError> {
        Ok(self.db.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    pub fn sequence(&self) -> Result<u64, StoreError> {
        read_sequence(&self.db)
    }

    pub fn contents(&mut self) -> Result<Contents, StoreError> {
        let path = PathBuf::from(self.db.path().unwrap_or(FILE));
        self.read_contents().map_err(|error| match error {
            StoreError::Manifest(error) => unreadable(&path, error),
            other => other,
        })
    }

    fn read_contents(&mut self) -> Result<Contents, StoreError> {
        let tx = self.db.transaction()?;
        let segments = tx
            .prepare("SELECT ulid, table_name, content FROM segments ORDER BY ulid")?
            .query_map([], |row| Ok(Named { ulid: row.get(0)?, table: row.get(1)?, content: row.get(2)? }))?
            .collect::<Result<_, _>>()?;
        let (offsets, watermarks) = (read_offsets(&tx)?, read_watermarks(&tx)?);
        Ok(Contents { sequence: read_sequence(&tx)?, segments, offsets, watermarks })
    }

    /// One transaction: `added` segments, the offsets advanced by `ranges`, the watermarks raised. Refused if the
    /// manifest is not at `after`, or if the ranges do not continue its offsets.
    pub fn commit(
        &mut self,
        after: u64,
        added: &[Named],
        ranges: &Ranges,
        watermarks: &Watermarks,
    ) -> Result<(Offsets, Watermarks), StoreError> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = read_sequence(&tx)?;
        if found != after {
            return Err(StoreError::OutOfStep { expected: after, found });
        }
        let mut offsets = read_offsets(&tx)?;
        offsets.advance(ranges)?;
        let mut marks = read_watermarks(&tx)?;
        marks.merge(watermarks);
        let sequence = after as i64 + 1;
        insert(&tx, added, sequence)?;
        for (topic, partition) in ranges.0.keys() {
            let next = offsets.0[&(topic.clone(), *partition)];
            tx.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)", params![&**topic, partition, next])?;
        }
        for (source, micros) in &marks.0 {
            tx.execute("INSERT OR REPLACE INTO watermarks VALUES (?, ?)", params![source.name(), micros])?;
        }
        tx.execute("UPDATE commits SET sequence = ?", [sequence])?;
        tx.commit()?;
        Ok((offsets, marks))
    }

    /// One transaction: `removed` segments go, `added` come. Refused if one of the removed is not there.
    pub fn swap(&mut self, removed: &[&str], added: &[Named]) -> Result<(), StoreError> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        delete(&tx, removed)?;
        let sequence = read_sequence(&tx)?;
        insert(&tx, added, sequence as i64)?;
        tx.commit()?;
        Ok(())
    }

    /// One transaction: those of `candidates` that no hold protects are removed, and returned by index. A hold that is
    /// placed at the same time either comes first or finds them gone.
    pub fn expire(&mut self, candidates: &[(&str, Span)]) -> Result<Vec<usize>, StoreError> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let holds = holds::read(&tx)?;
        let free = |span: &Span| !holds.iter().any(|hold| hold.covers(span));
        let removed: Vec<usize> = (0..candidates.len()).filter(|index| free(&candidates[*index].1)).collect();
        delete(&tx, &removed.iter().map(|index| candidates[*index].0).collect::<Vec<_>>())?;
        tx.commit()?;
        Ok(removed)
    }

    pub fn names(&self, ulid: &str) -> Result<bool, StoreError> {
        Ok(self.db.prepare_cached("SELECT 1 FROM segments WHERE ulid = ?")?.exists([ulid])?)
    }

    pub fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        holds::read(&self.db)
    }

    pub fn db(&self) -> &Connection {
        &self.db
    }
}

pub const FILE: &str = "manifest.db";

fn insert(tx: &Transaction<'_>, added: &[Named], sequence: i64) -> Result<(), StoreError> {
    for segment in added {
        tx.execute(
            "INSERT INTO segments VALUES (?, ?, ?, ?)",
            params![segment.ulid, segment.table, segment.content, sequence],
        )?;
    }
    Ok(())
}

fn delete(tx: &Transaction<'_>, removed: &[&str]) -> Result<(), StoreError> {
    for ulid in removed {
        if tx.execute("DELETE FROM segments WHERE ulid = ?", [ulid])? != 1 {
            return Err(StoreError::NotNamed { segment: (*ulid).to_owned() });
        }
    }
    Ok(())
}

/// What SQLite says of a file that is not a database any more.
fn unreadable(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::ManifestDamaged { path: path.to_owned(), what: error.to_string() }
        }
        _ => StoreError::Manifest(error),
    }
}

fn refuse_newer(db: &Connection, dir: &Path) -> Result<(), StoreError> {
    let found: u32 = db
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| unreadable(&dir.join(FILE), error))?;
    match found > FORMAT {
        true => Err(StoreError::Newer { dir: dir.to_owned(), found, known: FORMAT }),
        false => Ok(()),
    }
}

fn read_sequence(db: &Connection) -> Result<u64, StoreError> {
    let sequence: i64 = db.query_row("SELECT sequence FROM commits", [], |row| row.get(0))?;
    Ok(sequence as u64)
}

fn read_offsets(db: &Connection) -> Result<Offsets, StoreError> {
    let mut statement = db.prepare("SELECT topic, partition, next FROM offsets")?;
    let rows = statement.query_map([], |row| {
        let topic: String = row.get(0)?;
        Ok(((topic.into(), row.get(1)?), row.get(2)?))
    })?;
    Ok(Offsets(rows.collect::<Result<_, _>>()?))
}

fn read_watermarks(db: &Connection) -> Result<Watermarks, StoreError> {
    let mut statement = db.prepare("SELECT source, micros FROM watermarks")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let mut marks = Watermarks::default();
    for row in rows {
        let (name, micros) = row?;
        // A source this version does not know cannot have been written by it; its mark concerns nobody here.
        if let Ok(source) = Source::from_str(&name) {
            marks.advance(source, micros);
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::OffsetRange;

    fn ranges(from: i64, next: i64) -> Ranges {
        let mut ranges = Ranges::default();
        ranges.push(&"audit".into(), 3, OffsetRange { from, next }).unwrap();
        ranges
    }

    fn segment(ulid: &str) -> Named {
        Named { ulid: ulid.into(), table: "falco".into(), content: "c0".into() }
    }

    #[test]
    fn a_commit_is_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::open(dir.path()).unwrap();
        let mut marks = Watermarks::default();
        marks.advance(Source::Falco, 7);
        manifest.commit(0, &[segment("A")], &ranges(10, 20), &marks).unwrap();
        let gap = manifest.commit(1, &[segment("B")], &ranges(21, 22), &marks).unwrap_err();
        assert!(matches!(gap, StoreError::Gap(_)), "{gap}");
        let step = manifest.commit(0, &[segment("B")], &ranges(20, 22), &marks).unwrap_err();
        assert!(matches!(step, StoreError::OutOfStep { .. }), "{step}");
        drop(manifest);
        let contents = Manifest::open_read_only(dir.path()).unwrap().contents().unwrap();
        assert_eq!(contents.sequence, 1);
        assert_eq!(contents.segments, [segment("A")]);
        assert_eq!(contents.offsets.next("audit", 3), Some(20));
        assert_eq!(contents.watermarks, marks);
    }

    #[test]
    fn a_newer_format_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        Manifest::open(dir.path()).unwrap().db.pragma_update(None, "user_version", FORMAT + 1).unwrap();
        let error = Manifest::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("hint: run the newer version"), "{error}");
    }

    #[test]
    fn an_older_format_is_upgraded_and_keeps_what_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join(FILE)).unwrap();
        db.execute_batch(TABLES).unwrap();
        db.execute_batch("INSERT INTO segments VALUES ('A', 'falco', 'c0', 1); UPDATE commits SET sequence = 1")
            .unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        drop(db);
        let beside = Manifest::open_read_only(dir.path()).unwrap();
        assert!(beside.holds().unwrap().is_empty(), "readable as it is");
        let mut manifest = Manifest::open(dir.path()).unwrap();
        assert_eq!(manifest.contents().unwrap().segments, [segment("A")]);
        let format: u32 = manifest.db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!((format, manifest.holds().unwrap().len()), (FORMAT, 0));
    }

    #[test]
    fn a_swap_removes_only_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::open(dir.path()).unwrap();
        manifest.commit(0, &[segment("A"), segment("B")], &ranges(0, 1), &Watermarks::default()).unwrap();
        let other = Manifest::open_read_only(dir.path()).unwrap();
        let before = other.version().unwrap();
        manifest.swap(&["A", "B"], &[segment("C")]).unwrap();
        assert_ne!(other.version().unwrap(), before, "a reader notices");
        let error = manifest.swap(&["C", "A"], &[segment("D")]).unwrap_err();
        assert!(matches!(error, StoreError::NotNamed { .. }), "{error}");
        let contents = manifest.contents().unwrap();
        assert_eq!((contents.sequence, contents.segments), (1, vec![segment("C")]));
    }

    #[test]
    fn a_full_disk_under_the_manifest_commits_nothing_and_can_heal() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::open(dir.path()).unwrap();
        let pages: i64 = manifest.db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let allow = |manifest: &Manifest, pages: i64| {
            manifest.db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        };
        allow(&manifest, pages);
        let large = Named { content: "c".repeat(100_000), ..segment("A") };
        let marks = Watermarks::default();
        let error = manifest.commit(0, std::slice::from_ref(&large), &ranges(0, 9), &marks).unwrap_err();
        assert!(error.can_heal() && error.to_string().contains("hint: free some space"), "{error}");
        let contents = manifest.contents().unwrap();
        assert_eq!((contents.sequence, contents.segments.len(), contents.offsets.next("audit", 3)), (0, 0, None));
        allow(&manifest, pages + 1000);
        manifest.commit(0, &[large], &ranges(0, 9), &marks).unwrap();
        let step = manifest.commit(0, &[segment("B")], &ranges(9, 10), &marks).unwrap_err();
        assert!(!step.can_heal(), "{step}");
    }

    #[test]
    fn a_damaged_manifest_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), vec![7; 8192]).unwrap();
        let error = Manifest::open(dir.path()).err().unwrap();
        assert!(matches!(error, StoreError::ManifestDamaged { .. }), "{error}");
        assert!(error.to_string().contains("stakeout restore"), "{error}");
    }
}
