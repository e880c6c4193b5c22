//! Is everything there, whole and once? Reads every byte of every committed segment and compares it with what was
//! written, with what the manifest says, and with the other segments. Works beside a running owner. Goes on after
//! the first problem: the list is what an operator needs.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event::{Offsets, RowHash, TableSchema, column};
use rusqlite::{Connection, OpenFlags};

use crate::disk::OsDisk;
use crate::lease::{Lease, Readers, owner};
use crate::manifest::{FILE as MANIFEST, Manifest, Named};
use crate::segment::{Columns, CoordinateSpan, Segment, coordinates, hashes, span};
use crate::store::orphans;
use crate::{StoreError, files};

/// Row hashes compared at a time, sixteen bytes each; beyond it the columns are read several times.
const HASHES_MAX: u64 = 8 << 20;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Table and ULID, if it is a segment's: what [`quarantine`] takes.
    pub segment: Option<(String, String)>,
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Number of the last commit.
    pub sequence: u64,
    pub segments: u64,
    /// By table: segments and rows.
    pub tables: BTreeMap<String, (u64, u64)>,
    pub rows: u64,
    pub files: u64,
    pub disk_bytes: u64,
    pub raw_bytes: u64,
    /// Partitions that the manifest has offsets of.
    pub partitions: u64,
    /// A process owns the directory: what it is writing has no name yet, so folders without a name were not judged.
    pub owner: Option<u32>,
    pub problems: Vec<Problem>,
}

/// Checks the store in `dir`. `progress` hears how many of how many bytes have been read. An error means that it could
/// not be checked at all.
pub fn verify(
    dir: &Path,
    tables: &[Arc<TableSchema>],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verified, StoreError> {
    let dir = dir.canonicalize().map_err(StoreError::io("open", dir))?;
    let mut verified = Verified { owner: owner(&dir), ..Verified::default() };
    let _readers = Readers::join(&dir)?;
    let contents = Manifest::open_read_only(&dir)?.contents()?;
    for what in check_database(&dir.join(MANIFEST))? {
        verified.problems.push(Problem { segment: None, what: format!("{MANIFEST}: {what}") });
    }
    verified.sequence = contents.sequence;
    verified.partitions = contents.offsets.0.len() as u64;
    verified.segments = contents.segments.len() as u64;
    let segments_dir = dir.join("segments");
    let mut opened: Vec<(Named, Arc<Segment>)> = Vec::new();
    for named in &contents.segments {
        let table = tables.iter().find(|table| table.name == named.table);
        let columns = table.map(|table| Arc::new(Columns { table: table.clone(), recompute: None }));
        match Segment::open(&segments_dir.join(&named.table).join(&named.ulid), &named.content, columns) {
            Ok(segment) => opened.push((named.clone(), Arc::new(segment))),
            Err(error) => verified.problem(named, error),
        }
    }
    let bytes_total: u64 = opened.iter().map(|(_, segment)| segment.meta.disk_bytes()).sum();
    let mut whole: Vec<(Named, Arc<Segment>)> = Vec::new();
    for (named, segment) in opened {
        progress(verified.disk_bytes, bytes_total);
        verified.count(&segment);
        match check(&segment, &contents.offsets) {
            Ok(problems) if problems.is_empty() => whole.push((named, segment)),
            Ok(problems) => {
                let segment = Some((named.table.clone(), named.ulid.clone()));
                verified.problems.extend(problems.into_iter().map(|what| Problem { segment: segment.clone(), what }));
            }
            Err(error) => verified.problem(&named, error),
        }
    }
    verified.compare(&whole, &contents.offsets)?;
    if verified.owner.is_none() && segments_dir.is_dir() {
        for orphan in orphans(&OsDisk, &segments_dir, &contents)? {
            let what = format!("{} is in no commit; the next start removes it", orphan.display());
            verified.problems.push(Problem { segment: None, what });
        }
    }
    Ok(verified)
}

impl Verified {
    fn problem(&mut self, named: &Named, error: StoreError) {
        let text = error.to_string();
        let what = text.split("\nhint: ").next().unwrap_or_default().to_owned();
        self.problems.push(Problem { segment: Some((named.table.clone(), named.ulid.clone())), what });
    }

    fn count(&mut self, segment: &Segment) {
        let meta = &segment.meta;
        self.rows += meta.rows;
        self.files += meta.files.len() as u64 + 1;
        self.disk_bytes += meta.disk_bytes();
        self.raw_bytes += meta.raw_bytes;
        let table = self.tables.entry(meta.table.clone()).or_default();
        *table = (table.0 + 1, table.1 + meta.rows);
    }

    /// Segments against each other: no row twice within a table, no offsets twice.
    fn compare(&mut self, segments: &[(Named, Arc<Segment>)], offsets: &Offsets) -> Result<(), StoreError> {
        let mut last: HashMap<(&str, &str, i64), (i64, &str)> = HashMap::new();
        for (named, segment) in segments {
            for span in segment.meta.coordinates.iter().filter(|span| next(offsets, span).is_some()) {
                let key = (named.table.as_str(), span.topic.as_str(), span.partition);
                if let Some((before, by)) = last.insert(key, (span.last, &named.ulid))
                    && before >= span.first
                {
                    let what = format!(
                        "offsets of {}/{} from {} on are also in segment {by}, up to {before}",
                        span.topic, span.partition, span.first
                    );
                    self.problems.push(Problem { segment: Some((named.table.clone(), named.ulid.clone())), what });
                }
            }
        }
        let mut tables: BTreeMap<&str, Vec<&Arc<Segment>>> = BTreeMap::new();
        segments.iter().for_each(|(named, segment)| tables.entry(&named.table).or_default().push(segment));
        for (table, segments) in tables {
            let (twice, example) = twice(&segments)?;
            if let Some(hash) = example {
                let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                let what = format!("{table}: {twice} rows are stored more than once, one with row_hash {hex}");
                self.problems.push(Problem { segment: None, what });
            }
        }
        Ok(())
    }
}

/// How many rows repeat an earlier one, and one of them. Hashes are spread evenly, so equal shares fit into memory.
fn twice(segments: &[&Arc<Segment>]) -> Result<(u64, Option<RowHash>), StoreError> {
    let rows: u64 = segments.iter().map(|segment| segment.meta.rows).sum();
    let shares = rows.div_ceil(HASHES_MAX).clamp(1, 256);
    let (mut count, mut example) = (0, None);
    for share in 0..shares {
        let mut all: Vec<RowHash> = Vec::new();
        for segment in segments {
            for batch in segment.data()?.read(&[column::ROW_HASH], 0..segment.rows())? {
                all.extend(hashes(&batch?).filter(|hash| u64::from(hash[0]) * shares / 256 == share));
            }
        }
        all.sort_unstable();
        for pair in all.windows(2).filter(|pair| pair[0] == pair[1]) {
            count += 1;
            example = Some(pair[0]);
        }
    }
    Ok((count, example))
}

fn next(offsets: &Offsets, span: &CoordinateSpan) -> Option<i64> {
    offsets.next(&span.topic, i32::try_from(span.partition).ok()?)
}

/// A segment against its description, its parts against each other, and its offsets against the manifest's.
fn check(segment: &Arc<Segment>, offsets: &Offsets) -> Result<Vec<String>, StoreError> {
    segment.verify()?;
    let (meta, mut problems) = (&segment.meta, Vec::new());
    let data = segment.data()?;
    if data.file_rows() != meta.rows {
        problems.push(format!("data.parquet has {} rows, not {}", data.file_rows(), meta.rows));
        return Ok(problems);
    }
    let indexed = u64::from(segment.index()?.rows);
    if indexed != meta.rows {
        problems.push(format!("its index has {indexed} rows, not {}", meta.rows));
    }
    let read = [column::TIME, column::INGEST_TIME, column::TOPIC, column::PARTITION, column::OFFSET];
    let batches = data.read(&read, 0..segment.rows())?.collect::<Result<Vec<_>, _>>()?;
    if span(&batches, column::TIME) != meta.time || span(&batches, column::INGEST_TIME) != meta.ingest_time {
        problems.push("its rows are not of the times that it says".to_owned());
    }
    let found = coordinates(&batches);
    if found != meta.coordinates {
        problems.push("its rows are not of the offsets that it says".to_owned());
    }
    for span in &found {
        if let Some(next) = next(offsets, span).filter(|next| span.last >= *next) {
            problems.push(format!(
                "it has offset {} of {}/{}, which the manifest has not committed (next is {next})",
                span.last, span.topic, span.partition
            ));
        }
    }
    Ok(problems)
}

/// What SQLite finds wrong with a database, beside whoever uses it.
pub fn check_database(path: &Path) -> Result<Vec<String>, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let damaged = |error: rusqlite::Error| vec![error.to_string()];
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(crate::manifest::BUSY_WAIT)?;
    let rows = || -> rusqlite::Result<Vec<String>> {
        let mut statement = db.prepare("PRAGMA integrity_check(20)")?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    Ok(rows().unwrap_or_else(damaged).into_iter().filter(|line| line != "ok").collect())
}

/// Sets damaged segments aside, so that the store opens without them: their folders go to `quarantine/`, the manifest
/// forgets them. Their events cannot be queried and are not read again from their source. Needs the lease.
pub fn quarantine(dir: &Path, segments: &[(String, String)]) -> Result<PathBuf, StoreError> {
    let dir = dir.canonicalize().map_err(StoreError::io("open", dir))?;
    let _lease = Lease::take(&dir)?;
    let aside = dir.join("quarantine");
    fs::create_dir_all(&aside).map_err(StoreError::io("create", &aside))?;
    for (table, ulid) in segments {
        let folder = dir.join("segments").join(table).join(ulid);
        // The folder first: a crash in between leaves a name without a folder, and this call can be repeated.
        match fs::rename(&folder, aside.join(format!("{table}-{ulid}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("set aside", &folder)(error));
            }
            _ => {}
        }
    }
    files::sync_names(&aside).map_err(StoreError::io("sync", &aside))?;
    let ulids: Vec<&str> = segments.iter().map(|(_, ulid)| ulid.as_str()).collect();
    Manifest::open(&dir)?.swap(&ulids, &[])?;
    Ok(aside)
}
