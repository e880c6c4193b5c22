//! Rows to segment files, in memory: nothing here touches a disk. The files of a tail (64 MB of raw events) take
//! about a fifth of its size. Indexing and Parquet of all tables are jobs that two threads share.

use std::collections::BTreeMap;
use std::sync::Mutex;

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, RecordBatch, StringViewArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use event::{ColumnType, RowHash, TableSchema, column};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::layout::{Layout, RAW_CUT};
use super::{CoordinateSpan, DATA, FORMAT, FileMeta, META, NewFile, SegmentMeta, Span, described, index};
use crate::StoreError;

/// Of the machine's cores; the others belong to normalize and detect.
const BUILD_THREADS: usize = 2;

/// A page is what reading one event unpacks, and what repeats is only found within one.
const RAW_PAGE_BYTES: usize = 2 << 20;

/// Page limits are only checked once per write batch.
const WRITE_BATCH_ROWS: usize = 64;

/// Of `raw`, half of a file, where it is sealed and events wait for it: level 9 takes four times as long and leaves a sixth less,
/// until it is merged.
const RAW_ZSTD_LEVEL: i32 = 3;

/// Where it is merged, to stay so for long: a fifth less than at level 3, in six times as long.
pub(super) const MERGED_RAW_ZSTD_LEVEL: i32 = 12;

/// `raw`, as it is or as it is cut.
const RAWS: [&str; 2] = [column::RAW, RAW_CUT];

/// Of the other columns, whose encodings have done most already: higher levels take three times as long for 1 %.
const ZSTD_LEVEL: i32 = 1;

/// The rows of one table that become a segment.
pub struct Rows<'a> {
    pub ulid: String,
    pub table: &'a TableSchema,
    pub batches: &'a [RecordBatch],
}

/// A segment ready to be written: the last file is `meta.json`.
pub struct Built {
    pub meta: SegmentMeta,
    pub files: Vec<NewFile>,
    /// BLAKE3 of `meta.json`.
    pub content: String,
}

pub fn build_all(all: &[Rows<'_>]) -> Result<Vec<Built>, StoreError> {
    // Indexing is most of the work: all indexes first, so that the last job is a short one.
    let jobs: Vec<(usize, bool)> =
        [true, false].into_iter().flat_map(|indexing| (0..all.len()).map(move |rows| (rows, indexing))).collect();
    let (queue, files) = (Mutex::new(jobs.into_iter()), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let Some((rows, indexing)) = queue.lock().expect("no job panics while it holds the queue").next() else {
                return Ok::<_, StoreError>(());
            };
            let built = if indexing {
                index::build(all[rows].batches.iter().map(raw_column))?
            } else {
                vec![parquet_file(&all[rows])?]
            };
            files.lock().expect("no job panics while it holds the results").insert((rows, indexing), built);
        }
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..BUILD_THREADS.min(all.len() * 2)).map(|_| scope.spawn(work)).collect();
        let mine = work();
        helpers.into_iter().fold(mine, |result, helper| {
            result.and(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    })?;
    let mut files = files.into_inner().expect("all threads ended well");
    Ok((0..all.len())
        .map(|rows| {
            let parts = [false, true].into_iter().flat_map(|i| files.remove(&(rows, i)).unwrap_or_default());
            describe(&all[rows], parts.collect())
        })
        .collect())
}

fn raw_column(batch: &RecordBatch) -> &StringViewArray {
    named(batch, column::RAW).as_string_view()
}

fn named<'a>(batch: &'a RecordBatch, name: &str) -> &'a dyn Array {
    batch.column_by_name(name).expect("every stored table begins with the meta columns; checked on append")
}

fn parquet_file(rows: &Rows<'_>) -> Result<NewFile, StoreError> {
    let layout = Layout::of(rows.batches)?;
    let schema = layout.file_schema(&rows.table.arrow());
    let properties = properties(rows.table, RAW_ZSTD_LEVEL)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    for batch in rows.batches {
        writer.write(&layout.cut(batch, &schema)?)?;
    }
    Ok(NewFile { name: DATA.to_owned(), bytes: writer.into_inner()? })
}

pub(super) fn properties(table: &TableSchema, raw_zstd_level: i32) -> Result<WriterProperties, StoreError> {
    let path = |name: &str| ColumnPath::from(name);
    let raw_zstd = Compression::ZSTD(ZstdLevel::try_new(raw_zstd_level)?);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_write_batch_size(WRITE_BATCH_ROWS);
    for raw in RAWS {
        properties = properties
            .set_column_compression(path(raw), raw_zstd)
            .set_column_data_page_size_limit(path(raw), RAW_PAGE_BYTES)
            .set_column_statistics_enabled(path(raw), EnabledStatistics::None);
    }
    // Values that never repeat: a dictionary would only be built to be thrown away.
    for unique in RAWS.into_iter().chain([column::ROW_HASH, column::EVENT_UID]) {
        properties = properties.set_column_dictionary_enabled(path(unique), false);
    }
    // Lengths apart: they would only interrupt the text.
    for text in RAWS.into_iter().chain([column::EVENT_UID]) {
        properties = properties.set_column_encoding(path(text), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    // Numbers that mostly rise. Deltas of what stands still cost as little as a dictionary of one entry.
    let times = table.columns.iter().filter(|column| column.kind == ColumnType::Timestamp);
    for rising in times.map(|column| column.name.as_str()).chain([column::OFFSET]) {
        properties = properties
            .set_column_dictionary_enabled(path(rising), false)
            .set_column_encoding(path(rising), Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

/// The row hashes of a batch.
pub fn hashes(batch: &RecordBatch) -> impl Iterator<Item = RowHash> {
    let column: &FixedSizeBinaryArray = named(batch, column::ROW_HASH).as_fixed_size_binary();
    column.iter().map(|hash| hash.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default())
}

/// Bytes of `raw` in a batch.
pub fn raw_bytes(batch: &RecordBatch) -> u64 {
    raw_column(batch).iter().flatten().map(|raw| raw.len() as u64).sum()
}

fn describe(rows: &Rows<'_>, mut files: Vec<NewFile>) -> Built {
    let meta = SegmentMeta {
        format: FORMAT,
        ulid: rows.ulid.clone(),
        table: rows.table.name.clone(),
        rows: rows.batches.iter().map(|batch| batch.num_rows() as u64).sum(),
        raw_bytes: rows.batches.iter().map(raw_bytes).sum(),
        time: span(rows.batches, column::TIME),
        ingest_time: span(rows.batches, column::INGEST_TIME),
        coordinates: coordinates(rows.batches),
        columns: Some(described(rows.table)),
        files: files.iter().map(FileMeta::of).collect(),
    };
    let (file, content) = meta_file(&meta);
    files.push(file);
    Built { meta, files, content }
}

/// `meta.json` and its hash, by which the manifest knows the segment.
pub(super) fn meta_file(meta: &SegmentMeta) -> (NewFile, String) {
    let bytes = serde_json::to_vec_pretty(meta).expect("plain values always serialize");
    let content = blake3::hash(&bytes).to_hex().to_string();
    (NewFile { name: META.to_owned(), bytes }, content)
}

impl FileMeta {
    pub fn of(file: &NewFile) -> FileMeta {
        FileMeta {
            name: file.name.clone(),
            bytes: file.bytes.len() as u64,
            blake3: blake3::hash(&file.bytes).to_hex().to_string(),
        }
    }
}

/// First and last time in a column without nulls.
pub fn span(batches: &[RecordBatch], name: &str) -> Span {
    let mut span = Span { first: i64::MAX, last: i64::MIN };
    for batch in batches {
        for time in named(batch, name).as_primitive::<TimestampMicrosecondType>().values() {
            span = Span { first: span.first.min(*time), last: span.last.max(*time) };
        }
    }
    span
}

pub fn coordinates(batches: &[RecordBatch]) -> Vec<CoordinateSpan> {
    let mut spans: BTreeMap<(&str, i64), (i64, i64)> = BTreeMap::new();
    for batch in batches {
        let topics = named(batch, column::TOPIC).as_string_view();
        let partitions = named(batch, column::PARTITION).as_primitive::<Int64Type>().values();
        let offsets = named(batch, column::OFFSET).as_primitive::<Int64Type>().values();
        for row in 0..batch.num_rows() {
            let span = spans.entry((topics.value(row), partitions[row])).or_insert((offsets[row], offsets[row]));
            *span = (span.0.min(offsets[row]), span.1.max(offsets[row]));
        }
    }
    let span = |((topic, partition), (first, last)): ((&str, i64), (i64, i64))| CoordinateSpan {
        topic: topic.to_owned(),
        partition,
        first,
        last,
    };
    spans.into_iter().map(span).collect()
}
