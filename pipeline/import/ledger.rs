//! Which files were imported to their end: `imports.ndjson` in the data directory, a line per file, written after the
//! commit that made its last row durable. It only saves time, since rows are dropped as duplicates anyway, and it is
//! not believed: a file counts as imported if it has not changed *and* the store still holds its first and last rows.
//! So a lost line, a restored older directory or rows that were deleted only cost reading the file again.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use event::{Micros, RowHash, RowKey, Seen, Source, column};
use normalize::Normalized;
use serde::{Deserialize, Serialize};
use source::{FileRead, FileStamp};

const NAME: &str = "imports.ndjson";

/// Files of which the store is asked at once.
const FILES_ASKED: usize = 10_000;

/// What an import reads files as. Under other schemas the same bytes may become other rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub source: Source,
    pub cluster: Option<String>,
    pub schemas: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    bytes: u64,
    /// Nanoseconds since the epoch.
    modified: i64,
    sha256: String,
    #[serde(flatten)]
    terms: Terms,
    /// Table, time and hash of the first and last row per table.
    rows: Vec<(String, Micros, RowHash)>,
}

pub struct Ledger {
    path: PathBuf,
    terms: Terms,
}

impl Ledger {
    pub fn new(data_dir: &Path, terms: Terms) -> Ledger {
        Ledger { path: data_dir.join(NAME), terms }
    }

    /// Per file: was it imported before, unchanged since, and is it still held?
    pub fn imported(&self, files: &[FileStamp], held: &dyn Seen) -> Result<Vec<bool>> {
        let mut known = self.entries(files)?;
        let mut imported = Vec::with_capacity(files.len());
        for files in files.chunks(FILES_ASKED) {
            let mut keys: BTreeMap<String, Vec<(usize, RowKey)>> = BTreeMap::new();
            let mut held_all = vec![false; files.len()];
            for (number, file) in files.iter().enumerate() {
                let Some(entry) = key(&file.path).and_then(|path| known.remove(&path)) else { continue };
                held_all[number] = !entry.rows.is_empty();
                for (table, time, hash) in entry.rows {
                    keys.entry(table).or_default().push((number, RowKey { time, hash }));
                }
            }
            for (table, keys) in keys {
                let (numbers, keys): (Vec<usize>, Vec<RowKey>) = keys.into_iter().unzip();
                for (number, held) in numbers.into_iter().zip(held.seen(&table, &keys)?) {
                    held_all[number] &= held;
                }
            }
            imported.extend(held_all);
        }
        Ok(imported)
    }

    /// The last entry of each of the files, where it is of their present state and of our terms.
    fn entries(&self, files: &[FileStamp]) -> Result<HashMap<PathBuf, Entry>> {
        let asked: HashMap<PathBuf, &FileStamp> =
            files.iter().filter_map(|file| Some((key(&file.path)?, file))).collect();
        let mut known = HashMap::new();
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(known),
            other => other.with_context(|| self.doing("read"))?,
        };
        for line in BufReader::new(file).split(b'\n') {
            // A line that a crash cut is no loss.
            let Ok(entry) = serde_json::from_slice::<Entry>(&line.with_context(|| self.doing("read"))?) else {
                continue;
            };
            let Some(file) = asked.get(&entry.path).filter(|_| entry.terms == self.terms) else { continue };
            if (entry.bytes, entry.modified) == (file.bytes, file.modified) {
                known.insert(entry.path.clone(), entry);
            } else {
                known.remove(&entry.path);
            }
        }
        Ok(known)
    }

    /// Notes files whose rows are all durable.
    pub fn add(&self, files: &[(FileRead, Ends)]) -> Result<()> {
        let mut lines = Vec::new();
        for (read, ends) in files {
            let Some(path) = key(&read.file.path).filter(|_| read.errors.is_empty()) else { continue };
            let rows = ends
                .0
                .iter()
                .flat_map(|(table, (first, last))| [first, last].map(|row| (table.to_string(), row.time, row.hash)));
            let entry = Entry {
                path,
                bytes: read.file.bytes,
                modified: read.file.modified,
                sha256: read.sha256.to_string(),
                terms: self.terms.clone(),
                rows: rows.collect(),
            };
            serde_json::to_writer(&mut lines, &entry)?;
            lines.push(b'\n');
        }
        if lines.is_empty() { Ok(()) } else { self.append(&lines).with_context(|| self.doing("write")) }
    }

    fn append(&self, lines: &[u8]) -> std::io::Result<()> {
        let mut file = File::options().read(true).append(true).create(true).open(&self.path)?;
        // Behind a line that was cut a new one begins.
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        file.write_all(lines)?;
        file.sync_data()
    }

    fn doing(&self, what: &str) -> String {
        format!("cannot {what} {}", self.path.display())
    }
}

/// A name that does not depend on where the command runs; `None` where JSON cannot hold it.
fn key(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok().filter(|path| path.to_str().is_some())
}

/// First and last row per table, of what was read of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends(BTreeMap<Arc<str>, (RowKey, RowKey)>);

impl Ends {
    /// Of every file (by its topic) that has rows here.
    pub fn of(rows: &Normalized) -> HashMap<String, Ends> {
        let mut all: HashMap<String, Ends> = HashMap::new();
        for batch in &rows.batches {
            let column = |name| batch.rows.column_by_name(name).expect("every stored table has the meta columns");
            let topics = column(column::TOPIC).as_string_view();
            let times = column(column::TIME).as_primitive::<TimestampMicrosecondType>();
            let hashes = column(column::ROW_HASH).as_fixed_size_binary();
            let key = |row: usize| RowKey {
                time: times.value(row),
                hash: hashes.value(row).try_into().expect("a row hash is as wide as its column"),
            };
            let mut first = 0;
            for row in 0..topics.len() {
                // Rows of a file follow one another.
                if row + 1 == topics.len() || topics.value(row + 1) != topics.value(row) {
                    let ends = all.entry(topics.value(row).to_owned()).or_default();
                    ends.0.insert(batch.table.clone(), (key(first), key(row)));
                    first = row + 1;
                }
            }
        }
        all
    }

    /// What was read of the same file after this.
    pub fn extend(&mut self, later: Ends) {
        for (table, (first, last)) in later.0 {
            self.0.entry(table).or_insert((first, last)).1 = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use event::SeenError;

    use super::*;

    struct Held(HashSet<RowHash>);

    impl Seen for Held {
        fn seen(&self, _table: &str, keys: &[RowKey]) -> Result<Vec<bool>, SeenError> {
            Ok(keys.iter().map(|key| self.0.contains(&key.hash)).collect())
        }
    }

    fn stamp(name: &str, bytes: u64) -> FileStamp {
        FileStamp { path: name.into(), bytes, modified: 7 }
    }

    fn read(name: &str, rows: [u8; 2]) -> (FileRead, Ends) {
        let [first, last] = rows.map(|byte| RowKey { time: 1, hash: [byte; 16] });
        let read = FileRead {
            file: stamp(name, 5),
            topic: "t".into(),
            sha256: "s".into(),
            messages: 2,
            errors: Vec::new(),
            notes: Vec::new(),
        };
        (read, Ends([("cloudtrail".into(), (first, last))].into()))
    }

    #[test]
    fn a_file_is_skipped_only_if_unchanged_and_held() {
        let dir = tempfile::tempdir().unwrap();
        let terms = Terms { source: Source::CloudTrail, cluster: None, schemas: "s".to_owned() };
        let ledger = Ledger::new(dir.path(), terms.clone());
        let held = Held([[1; 16], [2; 16], [3; 16]].into());
        assert_eq!(ledger.imported(&[stamp("/a", 5)], &held).unwrap(), [false]);
        let mut broken = read("/broken", [1, 2]);
        broken.0.errors.push("cut".to_owned());
        ledger.add(&[read("/a", [1, 2]), read("/b", [3, 4]), broken]).unwrap();
        // What a crash may leave.
        File::options().append(true).open(&ledger.path).unwrap().write_all(b"{\"path\":\"/half").unwrap();
        ledger.add(&[read("/c", [2, 3])]).unwrap();
        let asked = ["/a", "/b", "/c", "/broken", "/new"].map(|name| stamp(name, 5));
        assert_eq!(ledger.imported(&asked, &held).unwrap(), [true, false, true, false, false]);
        assert_eq!(ledger.imported(&[stamp("/a", 6)], &held).unwrap(), [false], "it has grown");
        let others = Ledger::new(dir.path(), Terms { schemas: "new".to_owned(), ..terms });
        assert_eq!(others.imported(&asked[..1], &held).unwrap(), [false], "rows may become others");
    }

    #[test]
    fn the_last_row_moves_on() {
        let mut ends = read("/a", [1, 2]).1;
        ends.extend(read("/a", [3, 4]).1);
        assert_eq!(ends, read("/a", [1, 4]).1);
    }
}
