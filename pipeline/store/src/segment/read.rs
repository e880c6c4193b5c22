//! A committed segment, opened for reading.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::PageIndexPolicy;

use super::index::IndexReader;
use super::{DATA, DEDUP, FORMAT, META, SegmentMeta};
use crate::StoreError;

/// Rows per batch when reading selected rows: bounds the memory that `raw` takes.
const READ_ROWS: usize = 1024;

pub struct Segment {
    pub dir: PathBuf,
    pub meta: SegmentMeta,
    index: OnceLock<IndexReader>,
}

impl Segment {
    /// Checks that the folder is there, holds what the manifest named (`content` is the hash of its `meta.json`)
    /// and that every file has its size. [`Segment::verify`] checks the bytes too.
    pub fn open(dir: &Path, content: &str) -> Result<Segment, StoreError> {
        let damaged = |what: String| StoreError::Damaged { segment: dir.display().to_string(), what };
        let bytes = fs::read(dir.join(META)).map_err(|error| damaged(format!("{META}: {error}")))?;
        if blake3::hash(&bytes).to_hex().as_str() != content {
            return Err(damaged(format!("{META} is not the one that was committed")));
        }
        let meta: SegmentMeta = serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{META}: {error}")))?;
        if meta.format > FORMAT {
            return Err(StoreError::Newer { dir: dir.to_owned(), found: meta.format, known: FORMAT });
        }
        for file in &meta.files {
            let found =
                fs::metadata(dir.join(&file.name)).map_err(|error| damaged(format!("{}: {error}", file.name)))?;
            if found.len() != file.bytes {
                return Err(damaged(format!("{} has {} bytes, not {}", file.name, found.len(), file.bytes)));
            }
        }
        Ok(Segment { dir: dir.to_owned(), meta, index: OnceLock::new() })
    }

    /// Reads every file and compares its hash.
    pub fn verify(&self) -> Result<(), StoreError> {
        for file in &self.meta.files {
            let path = self.dir.join(&file.name);
            let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
            if blake3::hash(&bytes).to_hex().as_str() != file.blake3 {
                let what = format!("{} does not have the bytes that were written", file.name);
                return Err(StoreError::Damaged { segment: self.dir.display().to_string(), what });
            }
        }
        Ok(())
    }

    pub fn rows(&self) -> usize {
        self.meta.rows as usize
    }

    pub fn data_path(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    pub fn data_bytes(&self) -> u64 {
        self.meta.files.iter().find(|file| file.name == DATA).map_or(0, |file| file.bytes)
    }

    /// Opened at first use, then kept: it is memory-mapped.
    pub fn index(&self) -> Result<&IndexReader, StoreError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let opened = IndexReader::open(&self.dir)?;
        Ok(self.index.get_or_init(|| opened))
    }

    /// The fingerprints of the row hashes, sorted.
    pub fn fingerprints(&self) -> Result<Vec<u64>, StoreError> {
        let path = self.dir.join(DEDUP);
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect())
    }

    pub fn data(&self) -> Result<Data, StoreError> {
        let path = self.data_path();
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        Ok(Data { metadata: ArrowReaderMetadata::load(&file, options)?, file, path })
    }
}

/// The Parquet file of a segment, with its metadata read.
pub struct Data {
    file: File,
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl Data {
    pub fn has(&self, column: &str) -> bool {
        self.metadata.schema().column_with_name(column).is_some()
    }

    /// The given rows (ascending) of those of `columns` that the file has, in the file's column order.
    pub fn read(
        &self,
        columns: &[&str],
        rows: impl Iterator<Item = usize>,
    ) -> Result<ParquetRecordBatchReader, StoreError> {
        let file = self.file.try_clone().map_err(StoreError::io("open", &self.path))?;
        let schema = self.metadata.schema();
        let roots = columns.iter().filter_map(|name| schema.column_with_name(name)).map(|(root, _)| root);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let total = self.metadata.metadata().file_metadata().num_rows() as usize;
        let selection = RowSelection::from_consecutive_ranges(runs(rows).into_iter(), total);
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(mask)
            .with_row_selection(selection)
            .with_batch_size(READ_ROWS)
            .build()?)
    }
}

/// Consecutive rows as ranges.
fn runs(rows: impl Iterator<Item = usize>) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for row in rows {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}
