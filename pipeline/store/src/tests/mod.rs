//! Tests through the public door: tables and rows to put into a store, and what comes out of it.

mod crash;
mod flaky;
mod format2;
mod format3;
mod index;
mod language;
mod layout;
mod measure;
mod outside;
mod schema;
mod store;
mod upkeep;

use std::path::Path;
use std::sync::Arc;

use arrow::array::builder::{ListBuilder, StringViewBuilder};
use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use event::{Admitted, Batch, Column, ColumnType, OffsetRange, RowHash, TableSchema, column};
use serde_json::Value;

use crate::search::{Hits, Query, SearchOptions};
use crate::{Store, StoreOptions};

pub const TOPIC: &str = "audit";

/// A row: its time, its offset in [`TOPIC`], its bytes. Columns are extracted from `raw` by their own name.
#[derive(Clone, Debug)]
pub struct Row {
    pub time: i64,
    pub offset: i64,
    pub raw: String,
}

pub fn row(time: i64, offset: i64, raw: impl Into<String>) -> Row {
    Row { time, offset, raw: raw.into() }
}

/// The 15 meta columns, then the given ones; `*` marks common ones.
pub fn table(name: &str, columns: &[(&str, ColumnType)]) -> Arc<TableSchema> {
    use ColumnType::*;
    let meta = [
        (column::TIME, Timestamp, false),
        (column::INGEST_TIME, Timestamp, false),
        (column::EVENT_UID, String, false),
        (column::SOURCE, String, false),
        (column::CLUSTER, String, true),
        (column::ORIGIN, String, false),
        (column::TOPIC, String, false),
        (column::PARTITION, Int64, false),
        (column::OFFSET, Int64, false),
        (column::MESSAGE_INDEX, Int64, false),
        (column::FILE_SHA256, String, true),
        (column::SOURCE_WATERMARK, Timestamp, false),
        (column::ROW_HASH, Hash, false),
        (column::REDACTED, Bool, false),
        (column::RAW, String, false),
    ];
    let of = |name: &str, kind, nullable, common| Column {
        name: name.trim_start_matches('*').into(),
        kind,
        nullable,
        common,
        doc: "".into(),
        ocsf: None,
        values: Vec::new(),
        level: None,
    };
    let meta = meta.into_iter().map(|(name, kind, nullable)| of(name, kind, nullable, true));
    let more = columns.iter().map(|(name, kind)| of(name, *kind, true, name.starts_with('*')));
    Arc::new(TableSchema::new(name.into(), "".into(), meta.chain(more).collect()))
}

pub fn tables() -> Vec<Arc<TableSchema>> {
    use ColumnType::*;
    let kubernetes = [("*status", String), ("verb", String), ("code", Int64), ("ips", StringList), ("dry", Bool)];
    vec![
        table("kubernetes", &kubernetes),
        table("cloudtrail", &[("*status", String), ("event_name", String), ("*cloud_region", String)]),
        table("unparsed", &[("reason", String), ("bytes", Binary)]),
    ]
}

pub fn hash(raw: &str) -> RowHash {
    blake3::hash(raw.as_bytes()).as_bytes()[..16].try_into().unwrap()
}

pub fn batch(schema: &TableSchema, rows: &[Row]) -> Batch {
    let parsed: Vec<Value> = rows.iter().map(|row| serde_json::from_str(&row.raw).unwrap_or_default()).collect();
    let columns = schema.columns.iter().map(|column| array(column, rows, &parsed)).collect();
    Batch { table: schema.name.as_str().into(), rows: RecordBatch::try_new(schema.arrow(), columns).unwrap() }
}

fn array(of: &Column, rows: &[Row], parsed: &[Value]) -> ArrayRef {
    let values = || parsed.iter().map(|value| value.get(&of.name));
    let texts = |text: &dyn Fn(&Row) -> String| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(text)))
    };
    let times = |time: &dyn Fn(&Row) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(time)).with_timezone("UTC"))
    };
    match (of.name.as_str(), of.kind) {
        (column::TIME, _) => times(&|row| row.time),
        (_, ColumnType::Timestamp) => times(&|_| 1_000_000),
        (column::EVENT_UID, _) => texts(&|row| format!("{}", row.offset)),
        (column::RAW, _) => texts(&|row| row.raw.clone()),
        (column::TOPIC, _) => texts(&|_| TOPIC.into()),
        (column::SOURCE | column::ORIGIN, _) => texts(&|_| "live".into()),
        (column::OFFSET, _) => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.offset))),
        (column::PARTITION | column::MESSAGE_INDEX, _) => Arc::new(Int64Array::from(vec![0; rows.len()])),
        (column::REDACTED, _) => Arc::new(BooleanArray::from(vec![false; rows.len()])),
        (_, ColumnType::Hash) => {
            let mut hashes = FixedSizeBinaryBuilder::new(16);
            rows.iter().for_each(|row| hashes.append_value(hash(&row.raw)).unwrap());
            Arc::new(hashes.finish())
        }
        (_, ColumnType::String) => Arc::new(values().map(|v| v.and_then(Value::as_str)).collect::<StringViewArray>()),
        (_, ColumnType::Int64) => Arc::new(values().map(|v| v.and_then(Value::as_i64)).collect::<Int64Array>()),
        (_, ColumnType::Bool) => Arc::new(values().map(|v| v.and_then(Value::as_bool)).collect::<BooleanArray>()),
        (_, ColumnType::Binary) => Arc::new(BinaryArray::from(vec![None; rows.len()])),
        (_, ColumnType::StringList) => {
            let mut lists = ListBuilder::new(StringViewBuilder::new());
            for value in values() {
                match value.and_then(Value::as_array) {
                    Some(list) => {
                        list.iter().for_each(|item| lists.values().append_option(item.as_str()));
                        lists.append(true);
                    }
                    None => lists.append(false),
                }
            }
            Arc::new(lists.finish())
        }
    }
}

/// One unit for one table, covering the offsets of its rows.
pub fn unit(schema: &TableSchema, rows: &[Row]) -> Admitted {
    let mut admitted = Admitted { batches: vec![batch(schema, rows)], ..Admitted::default() };
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        let range = OffsetRange { from: first.offset, next: last.offset + 1 };
        admitted.ranges.push(&TOPIC.into(), 0, range).unwrap();
    }
    admitted
}

pub fn open(dir: &Path) -> Store {
    Store::open(dir, tables(), StoreOptions::default()).unwrap()
}

pub fn hits(store: &Store, query: &str) -> Hits {
    store.search(&Query::parse(query).unwrap(), &SearchOptions::default()).unwrap()
}

/// The `event_uid`s of the results, in order.
pub fn found(store: &Store, query: &str) -> Vec<String> {
    uids(hits(store, query))
}

pub fn uids(hits: Hits) -> Vec<String> {
    let mut uids = Vec::new();
    for batch in hits {
        let batch = batch.unwrap();
        let column = batch.column_by_name(column::EVENT_UID).unwrap().as_string_view();
        uids.extend(column.iter().map(|uid| uid.unwrap().to_owned()));
    }
    uids
}
