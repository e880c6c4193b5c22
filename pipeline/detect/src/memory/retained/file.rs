//! A file of what remains of expired rows: Parquet, one row for each version or span, and a head of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use event::{ColumnType, Micros, RowHash};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use crate::codec::{Codec, Encoded};
use crate::evidence::find;
use crate::memory::judge::FirstSeen;
use crate::memory::mark::{self, HASH, STAMP, TIME, UID};
use crate::memory::seen::Span;
use crate::memory::state::StateTable;
use crate::memory::versions::{Version, Versions};

const FORMAT: u32 = 1;
const HEAD: &str = "stakeout.retained";

/// Rows made at a time.
const ROWS: usize = 16_384;

const ENDED: &str = "__ended";
const FIRST: &str = "__first";
const LAST: &str = "__last";

/// What a file says of itself.
#[derive(Serialize, Deserialize)]
pub struct Head {
    format: u32,
    /// What it means: of another meaning it is another file.
    of: String,
    /// From when on versions are whole.
    pub floor: Micros,
    /// By table, the lowest time of the live rows that are gone.
    pub begins: BTreeMap<String, Micros>,
}

/// What every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Head {
    pub fn new(of: &str, floor: Micros, begins: BTreeMap<String, Micros>) -> Head {
        Head { format: FORMAT, of: of.to_owned(), floor, begins }
    }
}

pub enum Read {
    Whole(Head, Vec<RecordBatch>),
    /// Of a format that is not known here.
    Newer,
}

/// What was written, if it means the same; else what is wrong with it.
pub fn read(file: File, of: &str) -> std::result::Result<Read, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string())?;
    let about = reader.metadata().file_metadata().key_value_metadata();
    let head = about.and_then(|all| all.iter().find(|pair| pair.key == HEAD)?.value.clone()).ok_or("it has no head")?;
    let format: Format = serde_json::from_str(&head).map_err(|e| format!("its head: {e}"))?;
    if format.format > FORMAT {
        return Ok(Read::Newer);
    }
    let head: Head = serde_json::from_str(&head).map_err(|e| format!("its head: {e}"))?;
    if head.of != of {
        return Err("it is not what its name says".to_owned());
    }
    let reader = reader.with_batch_size(ROWS).build().map_err(|e| e.to_string())?;
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    Ok(Read::Whole(head, batches))
}

/// Columns as they are kept now: a function may return another type of number than it did.
fn encoded(codec: &Codec, columns: &[ArrayRef]) -> Result<Encoded> {
    let fields = codec.schema().fields().iter().zip(columns);
    let columns = fields.map(|(field, column)| Ok(cast(column, field.data_type())?)).collect::<Result<Vec<_>>>()?;
    codec.encode(&columns)
}

/// The file of some versions, each with its key.
pub fn of_versions(head: &Head, state: &StateTable, rows: &[(&[u8], &Version)]) -> Result<Vec<u8>> {
    written(head, schema_of_state(state), rows.chunks(ROWS).map(|rows| rows_of_versions(state, rows)))
}

/// The file of some spans, each with its key.
pub fn of_spans(head: &Head, first_seen: &FirstSeen, rows: &[(&[u8], &Span)]) -> Result<Vec<u8>> {
    written(head, schema_of_spans(first_seen), rows.chunks(ROWS).map(|rows| rows_of_spans(first_seen, rows)))
}

fn written(head: &Head, schema: SchemaRef, batches: impl Iterator<Item = Result<RecordBatch>>) -> Result<Vec<u8>> {
    let head = serde_json::to_string(head).map_err(io::Error::from)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(HEAD.to_owned(), head)]))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    Ok(writer.into_inner()?)
}

/// Versions as they were written.
pub fn versions(state: &StateTable, batch: &RecordBatch, into: &mut Versions) -> Result<()> {
    let (keys, values) = (state.keys.schema().fields().len(), state.values.schema().fields().len());
    let (keys, values) = batch.columns()[..keys + values].split_at(keys);
    let (keys, values) = (encoded(&state.keys, keys)?, encoded(&state.values, values)?);
    let ended = find(batch, ENDED)?.as_boolean();
    for (row, mark) in mark::of_query(batch)?.into_iter().enumerate() {
        into.add(keys.row(row), mark, (!ended.value(row)).then(|| values.row(row)));
    }
    Ok(())
}

/// Spans as they were written.
pub fn spans(first_seen: &FirstSeen, batch: &RecordBatch, take: &mut dyn FnMut(&[u8], Span)) -> Result<()> {
    let keys = encoded(&first_seen.keys, &batch.columns()[..first_seen.keys.schema().fields().len()])?;
    let first = find(batch, FIRST)?.as_primitive::<TimestampMicrosecondType>();
    let last = find(batch, LAST)?.as_primitive::<TimestampMicrosecondType>();
    let uids = find(batch, UID)?.as_string_view();
    for row in 0..batch.num_rows() {
        let span = Span { first: first.value(row), last: last.value(row), uid: Some(uids.value(row).into()) };
        take(keys.row(row), span);
    }
    Ok(())
}

fn times(times: impl Iterator<Item = Micros>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_data_type(ColumnType::Timestamp.arrow()))
}

fn time(name: &str) -> Field {
    Field::new(name, ColumnType::Timestamp.arrow(), false)
}

fn with_fields(parts: &[&SchemaRef], more: Vec<Field>) -> SchemaRef {
    let fields = parts.iter().flat_map(|schema| schema.fields().iter()).map(|field| field.as_ref().clone());
    Arc::new(Schema::new(fields.chain(more).collect::<Vec<_>>()))
}

fn schema_of_state(state: &StateTable) -> SchemaRef {
    let uid = Field::new(UID, DataType::Utf8View, false);
    let hash = Field::new(HASH, DataType::FixedSizeBinary(size_of::<RowHash>() as i32), false);
    let more = vec![Field::new(ENDED, DataType::Boolean, false), time(TIME), uid, time(STAMP), hash];
    with_fields(&[state.keys.schema(), state.values.schema()], more)
}

fn rows_of_versions(state: &StateTable, rows: &[(&[u8], &Version)]) -> Result<RecordBatch> {
    let mut columns = state.keys.decode(&rows.iter().map(|(key, _)| Some(*key)).collect::<Vec<_>>())?;
    columns.extend(state.values.decode(&rows.iter().map(|(_, v)| v.values.as_deref()).collect::<Vec<_>>())?);
    columns.push(Arc::new(rows.iter().map(|(_, v)| Some(v.values.is_none())).collect::<BooleanArray>()));
    columns.push(times(rows.iter().map(|(_, v)| v.mark.time)));
    columns.push(Arc::new(rows.iter().map(|(_, v)| Some(&*v.mark.uid)).collect::<StringViewArray>()));
    columns.push(times(rows.iter().map(|(_, v)| v.mark.stamp)));
    let mut hashes = FixedSizeBinaryBuilder::new(size_of::<RowHash>() as i32);
    rows.iter().try_for_each(|(_, v)| hashes.append_value(v.mark.hash))?;
    columns.push(Arc::new(hashes.finish()));
    Ok(RecordBatch::try_new(schema_of_state(state), columns)?)
}

fn schema_of_spans(first_seen: &FirstSeen) -> SchemaRef {
    with_fields(&[first_seen.keys.schema()], vec![time(FIRST), time(LAST), Field::new(UID, DataType::Utf8View, false)])
}

fn rows_of_spans(first_seen: &FirstSeen, rows: &[(&[u8], &Span)]) -> Result<RecordBatch> {
    let mut columns = first_seen.keys.decode(&rows.iter().map(|(key, _)| Some(*key)).collect::<Vec<_>>())?;
    columns.push(times(rows.iter().map(|(_, span)| span.first)));
    columns.push(times(rows.iter().map(|(_, span)| span.last)));
    columns.push(Arc::new(
        rows.iter().map(|(_, s)| Some(s.uid.as_deref().unwrap_or_default())).collect::<StringViewArray>(),
    ));
    Ok(RecordBatch::try_new(schema_of_spans(first_seen), columns)?)
}
