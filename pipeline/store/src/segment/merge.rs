//! Several segments into one, rows in the order of the inputs. Parquet is read and written batch by batch; only the
//! index (an eighth of the events' bytes) is held in memory. Columns that an input lacks are computed on the way, so
//! that a merge also brings segments up to the schemas of today.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::arrow::ArrowWriter;

use super::build::{MERGED_RAW_ZSTD_LEVEL, meta_file, properties};
use super::layout::{Layout, RUN_ROWS, RUNS, sample};
use super::publish::{Points, place, remove_leftover};
use super::{
    Columns, CoordinateSpan, DATA, Data, FORMAT, FileMeta, NewFile, Segment, SegmentMeta, TEMPORARY, described, index,
};
use crate::StoreError;
use crate::disk::Disk;

/// A row group is written out at this size, which bounds what the Parquet writer holds.
const ROW_GROUP_BYTES: usize = 32 << 20;

const POINTS: Points = Points { before_fsync: "before-merge-fsync", after_rename: "after-merge-rename" };

/// Publishes the merged segment under `ulid` and returns the hash of its description; `None` if `stop` said so on the
/// way. The inputs are of one table and in admission order; their bytes are checked first, since a merge would give
/// damage a fresh hash.
pub fn merge(
    disk: &dyn Disk,
    parent: &Path,
    ulid: &str,
    inputs: &[Arc<Segment>],
    columns: &Columns,
    stop: &dyn Fn() -> bool,
) -> Result<Option<String>, StoreError> {
    for input in inputs {
        if stop() {
            return Ok(None);
        }
        input.verify()?;
    }
    // Nobody can have read what was never committed.
    remove_leftover(disk, &parent.join(format!("{TEMPORARY}{ulid}")));
    remove_leftover(disk, &parent.join(ulid));
    let (mut content, mut stopped) = (String::new(), false);
    let placed = place(disk, parent, ulid, &POINTS, |folder| {
        let Some(data) = write_rows(disk, &folder.join(DATA), inputs, columns, stop)? else {
            stopped = true;
            return Err(StoreError::Stopped);
        };
        let dirs: Vec<&Path> = inputs.iter().map(|input| input.dir.as_path()).collect();
        let mut files = index::merge(&dirs)?;
        let meta = describe(ulid, inputs, columns, data, &files);
        let (file, hash) = meta_file(&meta);
        files.push(file);
        content = hash;
        for NewFile { name, bytes } in &files {
            let path = folder.join(name);
            disk.write(&path, bytes).map_err(StoreError::io("write", &path))?;
        }
        Ok(files.into_iter().map(|file| file.name).chain([DATA.to_owned()]).collect())
    });
    match placed {
        Err(StoreError::Stopped) if stopped => Ok(None),
        other => other.map(|_| Some(content)),
    }
}

fn write_rows(
    disk: &dyn Disk,
    path: &Path,
    inputs: &[Arc<Segment>],
    columns: &Columns,
    stop: &dyn Fn() -> bool,
) -> Result<Option<FileMeta>, StoreError> {
    let file = disk.create(path).map_err(StoreError::io("create", path))?;
    let out = Hashing { file, hasher: blake3::Hasher::new(), bytes: 0 };
    let properties = properties(&columns.table, MERGED_RAW_ZSTD_LEVEL)?;
    let names: Vec<&str> = columns.table.columns.iter().map(|column| column.name.as_str()).collect();
    let files = inputs.iter().map(|input| input.data()).collect::<Result<Vec<_>, _>>()?;
    let layout = layout(&names, &files)?;
    let schema = layout.file_schema(&columns.table.arrow());
    let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties))?;
    for file in files {
        for batch in file.read(&names, 0..file.rows())? {
            if stop() {
                return Ok(None);
            }
            let batch = layout.cut(&batch?, &schema)?;
            writer.write(&batch).map_err(|error| parquet_error(error, path))?;
            if writer.in_progress_size() > ROW_GROUP_BYTES {
                writer.flush().map_err(|error| parquet_error(error, path))?;
            }
        }
    }
    let Hashing { mut file, hasher, bytes } = writer.into_inner().map_err(|error| parquet_error(error, path))?;
    file.flush().map_err(StoreError::io("write", path))?;
    let blake3 = hasher.finalize().to_hex().to_string();
    Ok(Some(FileMeta { name: DATA.to_owned(), bytes, blake3 }))
}

/// How the rows of all files are written.
fn layout(names: &[&str], files: &[Data]) -> Result<Layout, StoreError> {
    let places = names.iter().map(|name| files.iter().map(|file| file.place(name)).collect());
    let places = places.collect::<Result<Vec<_>, StoreError>>()?;
    // Some rows of some files, from their middle; of small ones all rows of more files.
    let rows: usize = files.iter().map(Data::rows).sum();
    let step = (rows / RUN_ROWS).min(files.len().div_ceil(RUNS)).max(1);
    let mut some = Vec::new();
    for file in files.iter().step_by(step) {
        let start = file.rows().saturating_sub(RUN_ROWS) / 2;
        let rows = file.read(names, start..file.rows().min(start + RUN_ROWS))?;
        some.extend(rows.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(Layout::of_files(&sample(&some)?, &places))
}

/// A full disk must look like one, also through the Parquet writer.
fn parquet_error(error: parquet::errors::ParquetError, path: &Path) -> StoreError {
    match error {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => StoreError::io("write", path)(*error),
            Err(inner) => StoreError::Parquet(parquet::errors::ParquetError::External(inner)),
        },
        other => StoreError::Parquet(other),
    }
}

fn describe(ulid: &str, inputs: &[Arc<Segment>], columns: &Columns, data: FileMeta, files: &[NewFile]) -> SegmentMeta {
    let metas: Vec<&SegmentMeta> = inputs.iter().map(|input| &input.meta).collect();
    let (first, rest) = metas.split_first().expect("a merge has inputs");
    SegmentMeta {
        format: FORMAT,
        ulid: ulid.to_owned(),
        table: first.table.clone(),
        rows: metas.iter().map(|meta| meta.rows).sum(),
        raw_bytes: metas.iter().map(|meta| meta.raw_bytes).sum(),
        time: rest.iter().fold(first.time, |span, meta| span.around(&meta.time)),
        ingest_time: rest.iter().fold(first.ingest_time, |span, meta| span.around(&meta.ingest_time)),
        coordinates: coordinates(&metas),
        columns: Some(described(&columns.table)),
        files: [data].into_iter().chain(files.iter().map(FileMeta::of)).collect(),
    }
}

fn coordinates(metas: &[&SegmentMeta]) -> Vec<CoordinateSpan> {
    let mut spans: BTreeMap<(&str, i64), CoordinateSpan> = BTreeMap::new();
    for span in metas.iter().flat_map(|meta| &meta.coordinates) {
        spans
            .entry((&span.topic, span.partition))
            .and_modify(|all| {
                all.first = all.first.min(span.first);
                all.last = all.last.max(span.last);
            })
            .or_insert_with(|| span.clone());
    }
    spans.into_values().collect()
}

/// Hashes and counts what goes by, since the file is not read again to describe it.
struct Hashing {
    file: Box<dyn Write + Send>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
