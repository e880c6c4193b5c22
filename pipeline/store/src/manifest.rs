//! `manifest.db`: which segments exist, the next offset per partition, the watermarks. The only truth: a segment
//! that it does not name does not exist. Every commit is one SQLite transaction with `synchronous=FULL`; in WAL
//! mode readers of other processes never wait for the writer.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use event::{Offsets, Ranges, Source, Watermarks};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use crate::StoreError;

/// Raised whenever an older version could misread what this one writes.
pub const FORMAT: u32 = 1;

/// How long a reader waits for a writer's short transaction (and the reverse) before it gives up.
const BUSY_WAIT: Duration = Duration::from_secs(10);

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
    /// Creates it if missing.
    pub fn open(dir: &Path) -> Result<Manifest, StoreError> {
        let db = Connection::open(dir.join("manifest.db"))?;
        db.busy_timeout(BUSY_WAIT)?;
        refuse_newer(&db, dir)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "full")?;
        db.execute_batch(TABLES)?;
        db.pragma_update(None, "user_version", FORMAT)?;
        Ok(Manifest { db })
    }

    /// For a reader beside the owner: fails if there is no manifest.
    pub fn open_read_only(dir: &Path) -> Result<Manifest, StoreError> {
        // Reading a WAL database needs its shared-memory file, hence the write flag; the pragma forbids writing.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(dir.join("manifest.db"), flags)?;
        db.busy_timeout(BUSY_WAIT)?;
        refuse_newer(&db, dir)?;
        db.pragma_update(None, "query_only", true)?;
        Ok(Manifest { db })
    }

    pub fn sequence(&self) -> Result<u64, StoreError> {
        read_sequence(&self.db)
    }

    pub fn contents(&mut self) -> Result<Contents, StoreError> {
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
        for segment in added {
            tx.execute(
                "INSERT INTO segments VALUES (?, ?, ?, ?)",
                params![segment.ulid, segment.table, segment.content, sequence],
            )?;
        }
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
}

fn refuse_newer(db: &Connection, dir: &Path) -> Result<(), StoreError> {
    let found: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
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
}
