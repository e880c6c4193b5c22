//! Columns that are written once and `raw` that is cut: every way to read rows gives the rows that were appended.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use datafusion::prelude::{SessionConfig, SessionContext};
use event::{ColumnType, TableSchema, column, format_micros};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::schema::{ByName, describe_anew, segment};
use super::{Row, batch, row, table, uids, unit};
use crate::search::{Query, SearchOptions};
use crate::segment::layout::sample;
use crate::segment::{FileMeta, NewFile};
use crate::{Compaction, Store, StoreOptions};

fn kubernetes() -> Arc<TableSchema> {
    use ColumnType::*;
    let columns = [
        ("id", String),
        ("uri", String),
        ("copy", String),
        ("verb", String),
        ("never", String),
        ("*neither", String),
        ("code", Int64),
        ("same_code", Int64),
        ("ips", StringList),
        ("more_ips", StringList),
    ];
    table("kubernetes", &columns)
}

/// Ids and times that never repeat, columns that are alike in all rows or in most; some raws that are no JSON.
fn made(random: &mut StdRng, offset: i64, alike: bool) -> Row {
    let time = 1_700_000_000_000_000 + offset * random.random_range(1..1_000_000);
    let id = format!("{:016x}", random.random::<u64>());
    let copy = if alike || offset % 3 > 0 { id.clone() } else { format!("copy {offset}") };
    let (n, code) = (random.random_range(0..100), random.random_range(0..5) * 100);
    let raw = format!(
        r#"{{"id":"{id}","at":"{}","uri":"/api/{n}?a={id}\u0026b=c","copy":"{copy}","verb":"get","code":{code},"same_code":{code},"ips":["10.0.0.{n}"],"more_ips":["10.0.0.{n}"]}}"#,
        format_micros(time),
    );
    let raw = match random.random_range(0..20) {
        0 => format!("{}\u{1}\u{1c} no JSON {offset}", &raw[..random.random_range(0..raw.len())]),
        1 => raw.replace(':', " :\n\t"),
        2 => format!(r#"{{"n":{offset}}}"#),
        _ => raw,
    };
    row(time, offset, raw)
}

fn query(store: &Store, sql: &str) -> RecordBatch {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        session.register_table("kubernetes", store.table("kubernetes").unwrap()).unwrap();
        let found = session.sql(sql).await.unwrap();
        let schema: SchemaRef = Arc::new(found.schema().as_arrow().clone());
        concat_batches(&schema, &found.collect().await.unwrap()).unwrap()
    })
}

/// The rows that were appended, by SQL, by search, by the columns of a segment.
fn check(store: &Store, rows: &[Row], what: &str) {
    let schema = kubernetes();
    let expected = batch(&schema, rows).rows;
    let all = query(store, "SELECT * FROM kubernetes ORDER BY \"offset\"");
    for (field, column) in expected.schema().fields().iter().zip(expected.columns()) {
        assert_eq!(all.column_by_name(field.name()).unwrap(), column, "{what}: {}", field.name());
    }
    let where_ = |sql: &str, holds: &dyn Fn(usize) -> bool| {
        let found = query(store, &format!("SELECT \"offset\" FROM kubernetes WHERE {sql} ORDER BY 1"));
        let found = found.column(0).as_primitive::<Int64Type>().values().to_vec();
        let expected: Vec<i64> = (0..rows.len()).filter(|at| holds(*at)).map(|at| rows[at].offset).collect();
        assert_eq!(found, expected, "{what}: {sql}");
    };
    let text = |name: &str, at: usize| {
        let column = expected.column_by_name(name).unwrap().as_string_view();
        column.is_valid(at).then(|| column.value(at).to_owned())
    };
    let some = rows.len() / 2;
    let id = text("id", some).unwrap_or_default();
    where_("copy LIKE 'copy%'", &|at| text("copy", at).is_some_and(|copy| copy.starts_with("copy")));
    where_(&format!("copy = '{id}'"), &|at| text("copy", at).as_ref() == Some(&id));
    where_(&format!("raw LIKE '%{id}%' AND verb = 'get'"), &|at| {
        rows[at].raw.contains(&id) && text("verb", at).as_deref() == Some("get")
    });
    where_("never IS NULL AND neither IS NULL AND more_ips IS NULL", &|at| {
        expected.column_by_name("more_ips").unwrap().is_null(at)
    });
    where_("raw LIKE '%no JSON%'", &|at| rows[at].raw.contains("no JSON"));
    let few = query(store, "SELECT length(raw) FROM kubernetes WHERE same_code = 300 ORDER BY \"offset\" LIMIT 3");
    let code = expected.column_by_name("code").unwrap().as_primitive::<Int64Type>().clone();
    let lengths = (0..rows.len()).filter(|at| code.is_valid(*at) && code.value(*at) == 300).take(3);
    let lengths: Vec<i32> = lengths.map(|at| rows[at].raw.chars().count() as i32).collect();
    assert_eq!(few.column(0).as_primitive::<Int32Type>().values().to_vec(), lengths, "{what}");

    let hits = store.search(&Query::parse("verb:get").unwrap(), &SearchOptions::default()).unwrap();
    let mut found = uids(hits);
    let mut expected_uids: Vec<String> = (0..rows.len())
        .filter(|at| text("verb", *at).as_deref() == Some("get"))
        .map(|at| rows[at].offset.to_string())
        .collect();
    found.sort();
    expected_uids.sort();
    assert_eq!(found, expected_uids, "{what}");
    for batch in store.search(&Query::parse("*").unwrap(), &SearchOptions::default()).unwrap() {
        let batch = batch.unwrap();
        let (uid, raw) = (batch.column_by_name("event_uid").unwrap(), batch.column_by_name("raw").unwrap());
        for (uid, raw) in uid.as_string_view().iter().zip(raw.as_string_view()) {
            let at = rows.iter().position(|row| row.offset.to_string() == uid.unwrap()).unwrap();
            assert_eq!(raw, Some(rows[at].raw.as_str()), "{what}");
        }
    }
}

fn columns_of(data: &Path) -> Vec<String> {
    let metadata = ArrowReaderMetadata::load(&File::open(data).unwrap(), Default::default()).unwrap();
    metadata.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// The only segment with its columns as they are, as up to format 4.
pub fn as_format_4(dir: &Path, table: &Arc<TableSchema>) {
    let store = Store::open(dir, vec![table.clone()], StoreOptions::default()).unwrap();
    let rows = query(&store, "SELECT * FROM kubernetes ORDER BY \"offset\"");
    drop(store);
    let rows = RecordBatch::try_new(table.arrow(), rows.columns().to_vec()).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), table.arrow(), None).unwrap();
    writer.write(&rows).unwrap();
    let file = NewFile { name: "data.parquet".to_owned(), bytes: writer.into_inner().unwrap() };
    fs::write(segment(dir).join(&file.name), &file.bytes).unwrap();
    describe_anew(dir, |meta| {
        meta["format"] = json!(4);
        for described in meta["files"].as_array_mut().unwrap().iter_mut().filter(|f| f["name"] == "data.parquet") {
            *described = serde_json::to_value(FileMeta::of(&file)).unwrap();
        }
    });
}

#[test]
fn rows_come_back_from_sealed_and_merged_segments() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for older in [false, true] {
        // Columns that are alike in the first segment only are two in a merged one.
        for (first, then) in [(false, false), (true, false), (true, true)] {
            let what = |when: &str| format!("{when}, older {older}, alike {first} {then}");
            let dir = tempfile::tempdir().unwrap();
            let rows: Vec<Row> =
                (0..900).map(|offset| made(&mut random, offset, if offset < 400 { first } else { then })).collect();
            let open = || Store::open(dir.path(), vec![kubernetes()], StoreOptions::default()).unwrap();
            let put = |store: &Store, rows: &[Row]| {
                store.append(&unit(&kubernetes(), rows)).unwrap();
                store.seal().unwrap();
            };
            put(&open(), &rows[..400]);
            let sealed = columns_of(&segment(dir.path()).join("data.parquet"));
            let has = |columns: &[String], name: &str| columns.iter().any(|column| column == name);
            assert!(has(&sealed, "raw~cut") && has(&sealed, "id") && !has(&sealed, "raw"), "{sealed:?}");
            assert!(has(&sealed, "cluster") && !has(&sealed, "never") && !has(&sealed, "neither"), "{sealed:?}");
            assert!(!has(&sealed, "same_code") && !has(&sealed, "more_ips"), "{sealed:?}");
            assert_eq!(has(&sealed, "copy"), !first, "{sealed:?}");
            if older {
                as_format_4(dir.path(), &kubernetes());
                let plain = columns_of(&segment(dir.path()).join("data.parquet"));
                assert!(has(&plain, "raw") && has(&plain, "copy") && has(&plain, "neither"), "{plain:?}");
            }
            let store = open();
            check(&store, &rows[..400], &what("one segment"));
            put(&store, &rows[400..]);
            check(&store, &rows, &what("two segments"));
            let policy = Compaction { inputs_min: 2, ..Compaction::default() };
            let merged = store.compact(&policy, 0, &|| false).unwrap().unwrap();
            assert_eq!((merged.inputs, merged.rows), (2, 900));
            store.sweep().unwrap();
            check(&store, &rows, &what("merged"));
            let merged = columns_of(&segment(dir.path()).join("data.parquet"));
            assert!(has(&merged, "raw~cut") && has(&merged, "id"), "{merged:?}");
            // Rows of an older segment are not compared.
            assert_eq!(has(&merged, "same_code") && has(&merged, "neither"), older, "{merged:?}");
            assert_eq!(has(&merged, "copy"), older || !then, "{merged:?}");
            drop(store);
            assert_eq!(crate::verify(dir.path(), &[kubernetes()], &mut |_, _| {}).unwrap().problems, []);
            check(&open(), &rows, &what("opened again"));
        }
    }
}

#[test]
fn columns_that_are_computed_from_a_cut_raw_are_not_taken_for_one() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..100).map(|offset| made(&mut random, offset, false)).collect();
    let old = table("kubernetes", &[("id", ColumnType::String)]);
    let store = Store::open(dir.path(), vec![old.clone()], StoreOptions::default()).unwrap();
    store.append(&unit(&old, &rows)).unwrap();
    store.seal().unwrap();
    drop(store);
    let columns = columns_of(&segment(dir.path()).join("data.parquet"));
    assert!(columns.iter().any(|column| column == "raw~cut"), "{columns:?}");
    let options = StoreOptions { recompute: Some(Arc::new(ByName)), ..StoreOptions::default() };
    let store = Store::open(dir.path(), vec![kubernetes()], options).unwrap();
    check(&store, &rows, "as it is");
    assert_eq!(store.compact(&Compaction::default(), 0, &|| false).unwrap().unwrap().rows, 100);
    check(&store, &rows, "rewritten");
}

#[test]
fn a_column_that_is_raw_itself_is_written_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let id = |n: i64| format!("{:016x}", n * 7919);
    let table = table("kubernetes", &[("id", ColumnType::String), ("whole", ColumnType::String)]);
    let rows: Vec<Row> = (0..50).map(|n| row(n, n, format!(r#"{{"id":"{}"}}"#, id(n)))).collect();
    let mut unit = unit(&table, &rows);
    let batch = &mut unit.batches[0].rows;
    let mut columns = batch.columns().to_vec();
    columns[batch.schema().index_of("whole").unwrap()] = batch.column_by_name("raw").unwrap().clone();
    *batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let store = Store::open(dir.path(), vec![table.clone()], StoreOptions::default()).unwrap();
    store.append(&unit).unwrap();
    store.seal().unwrap();
    let found = query(&store, "SELECT raw, whole FROM kubernetes ORDER BY \"offset\"");
    assert_eq!(found.column(0).as_string_view().value(7), rows[7].raw);
    assert_eq!(found.column(0), found.column(1));
}

#[test]
fn a_sample_is_of_all_rows() {
    let offsets = |lengths: &[usize]| -> Vec<i64> {
        let mut offset = 0;
        let batches = lengths.iter().map(|length| {
            let rows: Vec<Row> = (0..*length).map(|n| row(0, offset + n as i64, "{}")).collect();
            offset += *length as i64;
            batch(&kubernetes(), &rows).rows
        });
        let sample = sample(&batches.collect::<Vec<_>>()).unwrap();
        let offsets =
            sample.column_by_name("offset").map(|column| column.as_primitive::<Int64Type>().values().to_vec());
        offsets.unwrap_or_default()
    };
    assert_eq!(offsets(&[]), [0; 0]);
    assert_eq!(offsets(&[0]), [0; 0]);
    assert_eq!(offsets(&[1, 0, 2]), [0, 1, 2]);
    assert_eq!(offsets(&[1; 100]), (0..100).collect::<Vec<_>>());
    let spread = offsets(&[3, 5000, 0, 2000]);
    assert_eq!((spread.len(), spread[0], spread[64], spread[255]), (256, 0, 2313, 7002));
}

#[test]
fn a_file_that_does_not_fit_its_layout_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let rows: Vec<Row> = (0..50).map(|offset| made(&mut random, offset, true)).collect();
    let store = Store::open(dir.path(), vec![kubernetes()], StoreOptions::default()).unwrap();
    store.append(&unit(&kubernetes(), &rows)).unwrap();
    store.seal().unwrap();
    drop(store);
    // The same rows, said to be cut by a column that has no such texts.
    let path = segment(dir.path()).join("data.parquet");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap());
    let reader = reader.unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let mut metadata = schema.metadata().clone();
    metadata.insert("stakeout.cut".to_owned(), json!(vec![column::CLUSTER; 8]).to_string());
    let schema = Arc::new(schema.as_ref().clone().with_metadata(metadata));
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    let file = NewFile { name: "data.parquet".to_owned(), bytes: writer.into_inner().unwrap() };
    fs::write(&path, &file.bytes).unwrap();
    describe_anew(dir.path(), |meta| {
        for described in meta["files"].as_array_mut().unwrap().iter_mut().filter(|f| f["name"] == "data.parquet") {
            *described = serde_json::to_value(FileMeta::of(&file)).unwrap();
        }
    });
    let store = Store::open(dir.path(), vec![kubernetes()], StoreOptions::default()).unwrap();
    let error = store.search(&Query::parse("*").unwrap(), &SearchOptions::default()).unwrap().find_map(Result::err);
    let error = error.unwrap().to_string();
    assert!(error.contains("`raw~cut` has a place for a text of `cluster`, which has none"), "{error}");
}
