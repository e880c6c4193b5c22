//! Segments of older schemas and older formats: read as if they were of today, or refused with a word.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use event::{ColumnType, Recompute, RowKey, Seen, TableSchema};
use serde_json::{Value, json};

use super::format3::dedup_file;
use super::layout::as_format_4;
use super::store::sql;
use super::{array, found, hash, row, table, tables, unit};
use crate::segment::FileMeta;
use crate::{Compaction, Store, StoreError, StoreOptions};

/// Columns by their own name in `raw`, as the other tests extract them.
pub struct ByName;

impl Recompute for ByName {
    fn recompute(&self, table: &TableSchema, names: &[&str], raw: &StringViewArray) -> Vec<ArrayRef> {
        let rows: Vec<super::Row> = raw.iter().map(|raw| row(0, 0, raw.unwrap())).collect();
        let parsed: Vec<Value> = rows.iter().map(|row| serde_json::from_str(&row.raw).unwrap_or_default()).collect();
        names.iter().map(|name| array(table.column(name).unwrap(), &rows, &parsed)).collect()
    }
}

fn options() -> StoreOptions {
    StoreOptions { recompute: Some(Arc::new(ByName)), ..StoreOptions::default() }
}

const OLD: [&str; 2] =
    [r#"{"verb":"get","code":7,"status":"Failure","ips":["10.0.0.9"]}"#, r#"{"verb":"list","code":8}"#];

/// A table that had only `verb`, and `code` as text.
fn old_table() -> Arc<TableSchema> {
    table("kubernetes", &[("verb", ColumnType::String), ("code", ColumnType::String)])
}

/// Two rows of it.
fn old_rows(dir: &Path) {
    let old = old_table();
    let store = Store::open(dir, vec![old.clone()], StoreOptions::default()).unwrap();
    store.append(&unit(&old, &[row(1, 0, OLD[0]), row(2, 1, OLD[1])])).unwrap();
    store.seal().unwrap();
}

pub fn segment(dir: &Path) -> PathBuf {
    let mut folders = fs::read_dir(dir.join("segments/kubernetes")).unwrap().map(|entry| entry.unwrap().path());
    let folder = folders.next().unwrap();
    assert!(folders.next().is_none());
    folder
}

fn manifest(dir: &Path, statement: &str, content: &str) {
    let db = rusqlite::Connection::open(dir.join("manifest.db")).unwrap();
    db.execute(statement, [content]).unwrap();
}

/// Rewrites the only segment's description.
pub fn describe_anew(dir: &Path, change: impl Fn(&mut Value)) {
    let path = segment(dir).join("meta.json");
    let mut meta: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut meta);
    let bytes = serde_json::to_vec(&meta).unwrap();
    fs::write(&path, &bytes).unwrap();
    manifest(dir, "UPDATE segments SET content = ?", blake3::hash(&bytes).to_hex().as_str());
}

/// The only segment as format 1 had it: no row numbers in `dedup.bin`, no columns in `meta.json`.
fn as_format_1(dir: &Path, table: &Arc<TableSchema>, raws: &[&str]) {
    as_format_4(dir, table);
    let dedup = dedup_file(raws.iter().copied(), false);
    fs::write(segment(dir).join(&dedup.name), &dedup.bytes).unwrap();
    describe_anew(dir, |meta| {
        meta["format"] = json!(1);
        meta.as_object_mut().unwrap().remove("columns");
        meta["files"].as_array_mut().unwrap().push(serde_json::to_value(FileMeta::of(&dedup)).unwrap());
    });
    let db = rusqlite::Connection::open(dir.join("manifest.db")).unwrap();
    db.execute_batch("DROP TABLE holds; PRAGMA user_version = 1").unwrap();
}

#[test]
fn columns_added_later_are_computed_from_raw() {
    for format_1 in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        old_rows(dir.path());
        if format_1 {
            as_format_1(dir.path(), &old_table(), &OLD);
        }
        let store = Store::open(dir.path(), tables(), options()).unwrap();
        let new = row(3, 2, r#"{"verb":"get","code":7,"ips":["10.0.0.9"]}"#);
        store.append(&unit(&tables()[0], &[new])).unwrap();
        store.seal().unwrap();
        let check = |store: &Store, what: &str| {
            let check = |query: &str, expected| assert_eq!(sql(store, query), expected, "{what}: {query}");
            check("SELECT count(*) FROM kubernetes WHERE verb = 'get'", 2);
            check("SELECT sum(code) FROM kubernetes", 22);
            check("SELECT count(*) FROM kubernetes WHERE code = 7", 2);
            check("SELECT count(*) FROM kubernetes WHERE status = 'Failure' AND verb = 'get'", 1);
            check("SELECT count(*) FROM kubernetes WHERE code IS NULL", 0);
            check("SELECT count(*) FROM kubernetes WHERE array_has(ips, '10.0.0.9') AND time < '1970-01-02'", 2);
            check("SELECT count(*) FROM (SELECT code FROM kubernetes LIMIT 2)", 2);
            let check = |query: &str, expected: &[&str]| assert_eq!(found(store, query), expected, "{what}: {query}");
            check("code:7", &["2", "0"]);
            check("code:[8 TO 9]", &["1"]);
            check("NOT code:7", &["1"]);
            check("code:*", &["2", "1", "0"]);
            check("ips:10.0.0.0/8", &["2", "0"]);
            check("status:failure", &["0"]);
            let batch = super::hits(store, "status:failure").next().unwrap().unwrap();
            let status = arrow::array::AsArray::as_string_view(batch.column_by_name("status").unwrap()).value(0);
            assert_eq!(status, "Failure", "{what}");
        };
        check(&store, "as they are");
        drop(store);
        let beside = Store::open_beside(dir.path(), tables(), Some(Arc::new(ByName))).unwrap();
        check(&beside, "beside");
        drop(beside);
        // A segment that lacks columns is rewritten even alone.
        let store = Store::open(dir.path(), tables(), options()).unwrap();
        let compacted = store.compact(&Compaction::default(), 0, &|| false).unwrap().unwrap();
        assert_eq!((compacted.inputs, compacted.rows), (1, 2));
        assert_eq!(store.compact(&Compaction::default(), 0, &|| false).unwrap(), None);
        store.sweep().unwrap();
        drop(store);
        check(&Store::open(dir.path(), tables(), StoreOptions::default()).unwrap(), "rewritten");
    }
}

#[test]
fn without_something_to_compute_them_missing_columns_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    old_rows(dir.path());
    let store = Store::open(dir.path(), tables(), StoreOptions::default()).unwrap();
    // What does not need them is answered.
    assert_eq!(sql(&store, "SELECT count(*) FROM kubernetes WHERE verb = 'get'"), 1);
    let query = crate::search::Query::parse("code:7").unwrap();
    let error = store.count(&query, Default::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Older { columns, .. } if columns == &["code"]), "{error}");
    assert!(error.to_string().contains("was written before the columns code existed"), "{error}");
    let failed =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sql(&store, "SELECT count(code) FROM kubernetes")));
    assert!(failed.is_err(), "nulls would look like facts");
    // Nor are they merged into segments that would claim to have them.
    assert_eq!(store.compact(&Compaction::default(), 0, &|| false).unwrap(), None);
}

#[test]
fn a_format_1_directory_is_upgraded() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(dir.path());
    let raws: Vec<String> = (0..50).map(|n| format!("{{\"n\":{n}}}")).collect();
    let rows: Vec<super::Row> = raws.iter().zip(0..).map(|(raw, n)| row(n, n, raw.clone())).collect();
    store.append(&unit(&tables()[0], &rows)).unwrap();
    store.seal().unwrap();
    drop(store);
    as_format_1(dir.path(), &tables()[0], &raws.iter().map(String::as_str).collect::<Vec<_>>());
    let store = super::open(dir.path());
    assert_eq!(found(&store, "*").len(), 50);
    let keys: Vec<RowKey> = raws.iter().zip(0..).map(|(raw, time)| RowKey { time, hash: hash(raw) }).collect();
    assert!(store.seen("kubernetes", &keys).unwrap().iter().all(|seen| *seen));
    assert_eq!(store.seen("kubernetes", &[RowKey { time: 7, hash: hash("other") }]).unwrap(), [false]);
    store.verify().unwrap();
    assert_eq!(crate::verify(dir.path(), &tables(), &mut |_, _| {}).unwrap().problems, []);
}

#[test]
fn a_newer_segment_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    old_rows(dir.path());
    describe_anew(dir.path(), |meta| *meta = json!({"format": 99, "shape": "unknown"}));
    let error = Store::open(dir.path(), tables(), StoreOptions::default()).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("hint: run the newer version"), "{error}");
}
