//! Legal holds: a range of event time that retention must not touch, with a reason and an author. They live in the
//! manifest, so that deciding and deleting are one transaction, and a released hold stays on record.

use std::path::Path;

use event::{Micros, format_micros};
use rusqlite::{Connection, OptionalExtension, params};

use crate::StoreError;
use crate::manifest::Manifest;
use crate::segment::Span;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Hold {
    pub id: i64,
    /// Event time, both ends included. A segment that overlaps is kept whole.
    pub first: Micros,
    pub last: Micros,
    pub reason: String,
    pub author: String,
    pub created: Micros,
    /// When and by whom; `None`: in force.
    pub released: Option<(Micros, String)>,
}

impl Hold {
    pub(crate) fn covers(&self, span: &Span) -> bool {
        self.released.is_none() && span.overlaps(&Span { first: self.first, last: self.last })
    }
}

/// The holds of a data directory; works beside a running process.
pub struct Holds {
    manifest: Manifest,
}

impl Holds {
    pub fn open(dir: &Path) -> Result<Holds, StoreError> {
        Ok(Holds { manifest: Manifest::open_beside(dir)? })
    }

    /// Returns the new hold's id.
    pub fn add(
        &mut self,
        first: Micros,
        last: Micros,
        reason: &str,
        author: &str,
        now: Micros,
    ) -> Result<i64, StoreError> {
        if first > last {
            let what = format!("{} is after {}", format_micros(first), format_micros(last));
            return Err(StoreError::Hold { what, hint: "a hold runs from an earlier to a later event time" });
        }
        if reason.trim().is_empty() || author.trim().is_empty() {
            let what = "no reason or no author".to_owned();
            return Err(StoreError::Hold { what, hint: "say why and on whose word: it is the record of the hold" });
        }
        let db = self.manifest.db();
        db.execute(
            "INSERT INTO holds (first, last, reason, author, created) VALUES (?, ?, ?, ?, ?)",
            params![first, last, reason, author, now],
        )?;
        Ok(db.last_insert_rowid())
    }

    /// All, released ones too, oldest first.
    pub fn list(&self) -> Result<Vec<Hold>, StoreError> {
        self.manifest.holds()
    }

    pub fn release(&mut self, id: i64, author: &str, now: Micros) -> Result<(), StoreError> {
        let changed = self.manifest.db().execute(
            "UPDATE holds SET released = ?, released_by = ? WHERE id = ? AND released IS NULL",
            params![now, author, id],
        )?;
        match changed {
            1 => Ok(()),
            _ => Err(StoreError::Hold { what: format!("no hold {id} is in force"), hint: "see `stakeout hold list`" }),
        }
    }
}

/// A directory that an older version wrote has none.
pub(crate) fn read(db: &Connection) -> Result<Vec<Hold>, StoreError> {
    let known = db
        .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'holds'", [], |_| Ok(()))
        .optional()?;
    if known.is_none() {
        return Ok(Vec::new());
    }
    let mut statement =
        db.prepare("SELECT id, first, last, reason, author, created, released, released_by FROM holds ORDER BY id")?;
    let rows = statement.query_map([], |row| {
        let released: Option<Micros> = row.get(6)?;
        let by: Option<String> = row.get(7)?;
        Ok(Hold {
            id: row.get(0)?,
            first: row.get(1)?,
            last: row.get(2)?,
            reason: row.get(3)?,
            author: row.get(4)?,
            created: row.get(5)?,
            released: released.zip(by),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
