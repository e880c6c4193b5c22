//! A committed segment, opened for reading: the description at once, Parquet and index when first asked.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use event::{RowHash, column};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use super::columns::{Columns, Reading, asked};
use super::index::IndexReader;
use super::layout::Layout;
use super::{DATA, FORMAT, META, SegmentMeta, hashes};
use crate::StoreError;

/// Rows per batch when reading selected rows: bounds the memory that `raw` takes.
const READ_ROWS: usize = 1024;

/// Bytes per read when hashing: a segment is hashed without being held.
const HASH_BYTES: usize = 1 << 20;

pub struct Segment {
    pub dir: PathBuf,
    pub meta: SegmentMeta,
    /// `None`: the schemas of today do not have its table; nobody reads its rows.
    pub columns: Option<Arc<Columns>>,
    lacking: OnceLock<Vec<String>>,
    index: OnceLock<IndexReader>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({})", self.dir.display())
    }
}

impl Segment {
    /// Checks that the folder is there, holds what the manifest named (`content` is the hash of its `meta.json`)
    /// and that every file has its size. [`Segment::verify`] checks the bytes too.
    pub fn open(dir: &Path, content: &str, columns: Option<Arc<Columns>>) -> Result<Segment, StoreError> {
        let damaged = |what: String| StoreError::Damaged { segment: dir.display().to_string(), what };
        let lost = |name: &str, error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => damaged(format!("{name} is missing")),
            _ => StoreError::io("open", &dir.join(name))(error),
        };
        let bytes = fs::read(dir.join(META)).map_err(|error| lost(META, error))?;
        // A later version may write a description that this one cannot read: say that rather than call it damage.
        let format = serde_json::from_slice::<Format>(&bytes).map_or(0, |meta| meta.format);
        if format > FORMAT {
            return Err(StoreError::Newer { dir: dir.to_owned(), found: format, known: FORMAT });
        }
        if blake3::hash(&bytes).to_hex().as_str() != content {
            return Err(damaged(format!("{META} is not the one that was committed")));
        }
        let meta: SegmentMeta = serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{META}: {error}")))?;
        for file in &meta.files {
            let found = fs::metadata(dir.join(&file.name)).map_err(|error| lost(&file.name, error))?;
            if found.len() != file.bytes {
                return Err(damaged(format!("{} has {} bytes, not {}", file.name, found.len(), file.bytes)));
            }
        }
        let (lacking, index) = Default::default();
        Ok(Segment { dir: dir.to_owned(), meta, columns, lacking, index })
    }

    /// For errors: the folder.
    pub fn name(&self) -> String {
        self.dir.display().to_string()
    }

    pub fn damaged(&self, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { segment: self.name(), what: what.into() }
    }

    /// Reads every file and compares its hash.
    pub fn verify(&self) -> Result<(), StoreError> {
        for file in &self.meta.files {
            let path = self.dir.join(&file.name);
            let hash = hash_file(&path).map_err(StoreError::io("read", &path))?;
            if hash.to_hex().as_str() != file.blake3 {
                return Err(self.damaged(format!("{} does not have the bytes that were written", file.name)));
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

    /// Columns of today's table that its file does not have.
    pub fn lacking(&self) -> Result<&[String], StoreError> {
        if let Some(lacking) = self.lacking.get() {
            return Ok(lacking);
        }
        let Some(columns) = &self.columns else { return Ok(&[]) };
        let lacking = match &self.meta.columns {
            Some(described) => columns.lacking(Some(described), |_| false),
            None => {
                let (_, metadata) = self.parquet()?;
                let (now, then) = (columns.table.arrow(), metadata.schema().as_ref());
                let kind = |schema: &arrow::datatypes::Schema, name: &str| {
                    schema.column_with_name(name).map(|(_, field)| field.data_type().clone())
                };
                columns.lacking(None, |name| kind(&now, name) == kind(then, name))
            }
        };
        Ok(self.lacking.get_or_init(|| lacking))
    }

    /// Opened at first use, then kept: it is memory-mapped.
    pub fn index(&self) -> Result<&IndexReader, StoreError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let opened = IndexReader::open(&self.dir).map_err(|error| match error {
            StoreError::Index(error) => self.damaged(format!("its index: {error}")),
            other => other,
        })?;
        Ok(self.index.get_or_init(|| opened))
    }

    /// Row hashes of the given rows (ascending), in order.
    pub fn row_hashes(self: &Arc<Self>, rows: impl Iterator<Item = usize>) -> Result<Vec<RowHash>, StoreError> {
        let mut all = Vec::new();
        for batch in self.data()?.read(&[column::ROW_HASH], rows)? {
            all.extend(hashes(&batch?));
        }
        Ok(all)
    }

    pub fn data(self: &Arc<Self>) -> Result<Data, StoreError> {
        let (file, metadata) = self.parquet()?;
        let layout = Layout::read(metadata.schema())
            .ok_or_else(|| self.damaged(format!("{DATA} does not say how its columns are laid out")))?;
        Ok(Data { metadata, file, layout: Arc::new(layout), segment: self.clone() })
    }

    fn parquet(&self) -> Result<(File, ArrowReaderMetadata), StoreError> {
        let path = self.data_path();
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(&file, options);
        Ok((file, metadata.map_err(|error| self.damaged(format!("{DATA}: {error}")))?))
    }
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}

/// BLAKE3 of a file, read in pieces.
pub fn hash_file(path: &Path) -> std::io::Result<blake3::Hash> {
    let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
    let mut piece = vec![0; HASH_BYTES];
    loop {
        match std::io::Read::read(&mut file, &mut piece)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(&piece[..read]),
        };
    }
}

/// The Parquet file of a segment, with its metadata read.
pub struct Data {
    file: File,
    segment: Arc<Segment>,
    metadata: ArrowReaderMetadata,
    layout: Arc<Layout>,
}

impl Data {
    pub fn rows(&self) -> usize {
        self.segment.rows()
    }

    /// Rows that the file itself counts.
    pub fn file_rows(&self) -> u64 {
        self.metadata.metadata().file_metadata().num_rows() as u64
    }

    pub fn metadata(&self) -> Arc<ParquetMetaData> {
        self.metadata.metadata().clone()
    }

    /// The given rows (ascending) of those of `columns` that the table has, in the order named. What the file lacks is
    /// computed from `raw`.
    pub fn read(&self, columns: &[&str], rows: impl Iterator<Item = usize>) -> Result<Reading, StoreError> {
        let segment = &self.segment;
        let file_schema = self.metadata.schema();
        let (schema, computed) = match &segment.columns {
            None => (asked(&self.layout.row_schema(file_schema), columns), Vec::new()),
            Some(today) => {
                let schema = asked(&today.table.arrow(), columns);
                let lacking = segment.lacking()?.iter().filter(|name| schema.column_with_name(name).is_some());
                let computed: Vec<String> = lacking.cloned().collect();
                if !computed.is_empty() && today.recompute.is_none() {
                    return Err(StoreError::Older { segment: segment.name(), columns: computed });
                }
                (schema, computed)
            }
        };
        let stored = schema.fields().iter().map(|field| field.name().as_str());
        let stored = stored.filter(|name| !computed.iter().any(|computed| computed == name));
        let along = (!computed.is_empty()).then_some(column::RAW);
        let needed = stored.chain(along).flat_map(|name| self.layout.needs(name));
        let roots = needed.filter_map(|name| file_schema.column_with_name(name)).map(|(root, _)| root);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots.collect::<Vec<_>>());
        let selection = RowSelection::from_consecutive_ranges(runs(rows).into_iter(), self.file_rows() as usize);
        let path = segment.data_path();
        let file = self.file.try_clone().map_err(StoreError::io("open", &path))?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(mask)
            .with_row_selection(selection)
            .with_batch_size(READ_ROWS)
            .build()
            .map_err(|error| segment.damaged(format!("{DATA}: {error}")))?;
        let (layout, columns) = (self.layout.clone(), segment.columns.clone());
        Ok(Reading { reader, layout, schema, computed, columns, segment: segment.name() })
    }

    /// Which column of the file a column of today's table comes out of; `None` if it is computed.
    pub fn place(&self, name: &str) -> Result<Option<String>, StoreError> {
        let computed = self.segment.lacking()?.iter().any(|lacking| lacking == name);
        Ok((!computed).then(|| self.layout.needs(name).next().unwrap_or(name).to_owned()))
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
