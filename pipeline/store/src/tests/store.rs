//! Append, seal, reopen; leases and readers; duplicates; SQL.

use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::{SessionConfig, SessionContext};
use event::{Admitted, ColumnType, RowKey, Seen, Source, Watermarks};

use super::{found, hash, hits, open, row, table, tables, uids, unit};
use crate::search::{Query, SearchOptions, TimeRange};
use crate::{SEAL_AFTER, Store, StoreError, StoreOptions};

fn verb(time: i64, offset: i64, verb: &str) -> super::Row {
    row(time, offset, format!(r#"{{"verb":"{verb}","n":{offset}}}"#))
}

#[test]
fn rows_are_found_before_and_after_the_seal_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let kubernetes = &tables()[0];
    store.append(&unit(kubernetes, &[verb(10, 0, "get"), verb(30, 1, "list")])).unwrap();
    assert_eq!(found(&store, "*"), ["1", "0"]);
    let commit = store.seal().unwrap().unwrap();
    assert_eq!((commit.sequence, commit.rows, commit.segments), (1, 2, 1));
    assert_eq!(commit.offsets.next(super::TOPIC, 0), Some(2));
    store.append(&unit(kubernetes, &[verb(20, 2, "get")])).unwrap();
    assert_eq!(found(&store, "*"), ["1", "2", "0"]);
    assert_eq!(found(&store, "verb:get"), ["2", "0"]);
    let stats = store.stats().unwrap();
    assert_eq!((stats.rows, stats.segments, stats.tail_rows), (2, 1, 1));
    assert_eq!(store.offsets().unwrap().next(super::TOPIC, 0), Some(2));
    assert_eq!(store.positions().unwrap().next(super::TOPIC, 0), Some(3));
    drop(store);
    let store = open(dir.path());
    assert_eq!(found(&store, "*"), ["1", "0"], "the unsealed row was lost with its offset");
    assert_eq!((store.sequence().unwrap(), store.offsets().unwrap()), (1, commit.offsets));
    store.verify().unwrap();
    assert!(store.seal().unwrap().is_none());
}

#[test]
fn seals_by_age_by_size_and_for_watermarks_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { seal_bytes: 100, ..StoreOptions::default() };
    let store = Store::open(dir.path(), tables(), options).unwrap();
    let later = || Instant::now() + SEAL_AFTER;
    assert!(!store.seal_due(later()));
    let mut watermarks = Watermarks::default();
    watermarks.advance(Source::Falco, 5);
    let marks = Admitted { watermarks, ..Admitted::default() };
    store.append(&marks).unwrap();
    assert!(store.seal_due(later()) && !store.seal_due(Instant::now()));
    let commit = store.seal().unwrap().unwrap();
    assert_eq!((commit.segments, commit.watermarks.get(Source::Falco)), (0, 5));
    store.append(&marks).unwrap();
    assert!(!store.seal_due(later()), "nothing new");
    store.append(&unit(&tables()[0], &[row(1, 0, "x".repeat(200))])).unwrap();
    assert!(store.seal_due(Instant::now() + Duration::ZERO));
}

#[test]
fn refuses_gaps_and_foreign_columns() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(&unit(&tables()[0], &[verb(1, 5, "get")])).unwrap();
    for offset in [5, 7] {
        let error = store.append(&unit(&tables()[0], &[verb(1, offset, "get")])).unwrap_err();
        assert!(matches!(error, StoreError::Gap(_)), "{error}");
    }
    store.seal().unwrap();
    let error = store.append(&unit(&tables()[0], &[verb(1, 5, "get")])).unwrap_err();
    assert!(matches!(error, StoreError::Gap(_)), "{error}");
    let other = table("kubernetes", &[("verb", ColumnType::Int64)]);
    let error = store.append(&unit(&other, &[verb(1, 6, "get")])).unwrap_err();
    assert!(matches!(error, StoreError::Schema { .. }), "{error}");
    assert_eq!(found(&store, "*"), ["5"]);
}

#[test]
fn one_owner_and_any_number_of_readers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = Store::open(dir.path(), tables(), StoreOptions::default()).err().unwrap();
    assert!(matches!(error, StoreError::Leased { pid, .. } if pid == std::process::id()), "{error}");
    let reader = Store::open_read_only(dir.path(), tables()).unwrap();
    store.append(&unit(&tables()[0], &[verb(1, 0, "get")])).unwrap();
    assert!(found(&reader, "*").is_empty());
    store.seal().unwrap();
    assert_eq!(found(&reader, "*"), ["0"]);
    assert_eq!(reader.sequence().unwrap(), 1);
    assert!(matches!(reader.seal(), Err(StoreError::ReadOnly)));
    drop(store);
    open(dir.path());
}

#[test]
fn what_no_commit_names_is_removed_and_what_is_named_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(&unit(&tables()[0], &[verb(1, 0, "get")])).unwrap();
    store.seal().unwrap();
    drop(store);
    let folder = dir.path().join("segments/kubernetes");
    let orphans = [folder.join("01ARZ3NDEKTSV4RRFFQ69G5FAV"), folder.join(".tmp-01ARZ3NDEKTSV4RRFFQ69G5FAW")];
    orphans.iter().for_each(|orphan| std::fs::create_dir(orphan).unwrap());
    std::fs::write(folder.join("note.txt"), "not ours").unwrap();
    drop(open(dir.path()));
    assert!(orphans.iter().all(|orphan| !orphan.exists()) && folder.join("note.txt").exists());
    let segment = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    std::fs::write(segment.join("data.parquet"), "short").unwrap();
    let error = Store::open(dir.path(), tables(), StoreOptions::default()).err().unwrap().to_string();
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(error.contains(name) && error.contains("data.parquet has 5 bytes") && error.contains("hint:"), "{error}");
}

#[test]
fn knows_which_rows_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let (kubernetes, unparsed) = (&tables()[0], &tables()[2]);
    let key = |time, raw: &str| RowKey { time, hash: hash(raw) };
    let keys = [key(10, "{\"a\":1}"), key(10, "{\"a\":2}"), key(20, "{\"a\":1}")];
    let check = |store: &Store, table: &str, expected: [bool; 3]| {
        assert_eq!(store.seen(table, &keys).unwrap(), expected, "{table}");
    };
    store.append(&unit(kubernetes, &[row(10, 0, "{\"a\":1}")])).unwrap();
    check(&store, "kubernetes", [true, false, true]);
    store.seal().unwrap();
    for _ in 0..2 {
        // Equal bytes have equal times, so a segment that does not cover the time is not asked.
        check(&store, "kubernetes", [true, false, false]);
        check(&store, "cloudtrail", [false; 3]);
        drop(store);
        store = open(dir.path());
    }
    store.append(&unit(unparsed, &[row(99, 1, "{\"a\":2}")])).unwrap();
    store.seal().unwrap();
    check(&store, "unparsed", [false, true, false]);
}

#[test]
fn results_have_the_common_columns_of_all_tables_and_obey_range_limit_and_tables() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = tables();
    store.append(&unit(&all[0], &[row(5, 0, r#"{"status":"Failure"}"#), row(7, 1, "{}")])).unwrap();
    store.seal().unwrap();
    store.append(&unit(&all[1], &[row(7, 2, r#"{"cloud_region":"eu-west-1"}"#)])).unwrap();
    store.append(&unit(&all[2], &[row(6, 3, "\u{0}not json")])).unwrap();
    let check = |options: SearchOptions, expected: &[&str]| {
        let hits = store.search(&Query::parse("").unwrap(), &options).unwrap();
        assert_eq!(uids(hits), expected, "{options:?}");
    };
    let range = |from, to| TimeRange { from, to };
    check(SearchOptions::default(), &["1", "2", "3", "0"]);
    check(SearchOptions { limit: Some(2), ..Default::default() }, &["1", "2"]);
    check(SearchOptions { range: range(Some(6), None), ..Default::default() }, &["1", "2", "3"]);
    check(SearchOptions { range: range(None, Some(7)), ..Default::default() }, &["3", "0"]);
    check(SearchOptions { tables: Some(vec!["cloudtrail".into()]), ..Default::default() }, &["2"]);
    let batch = hits(&store, "").next().unwrap().unwrap();
    let column = |name: &str| batch.column_by_name(name).unwrap().as_string_view().iter().collect::<Vec<_>>();
    assert_eq!(column("table"), [Some("kubernetes"), Some("cloudtrail"), Some("unparsed"), Some("kubernetes")]);
    assert_eq!(column("status"), [None, None, None, Some("Failure")]);
    assert_eq!(column("cloud_region"), [None, Some("eu-west-1"), None, None]);
    assert_eq!(column("raw")[2], Some("\u{0}not json"));
    let count = store.count(&Query::parse("json OR failure").unwrap(), range(Some(5), Some(7))).unwrap();
    assert_eq!(count.rows, 2);
    assert_eq!((count.coverage.segments, count.coverage.sealed_rows, count.coverage.unsealed_rows), (1, 2, 1));
    let error = store
        .search(&Query::parse("").unwrap(), &SearchOptions { tables: Some(vec!["pods".into()]), ..Default::default() });
    assert!(matches!(error.err(), Some(StoreError::UnknownTable(_))));
}

pub fn sql(store: &Store, query: &str) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        session.register_table("kubernetes", store.table("kubernetes").unwrap()).unwrap();
        session.register_table("committed", store.committed("kubernetes").unwrap()).unwrap();
        let batches = session.sql(query).await.unwrap().collect().await.unwrap();
        let values = batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec());
        values.sum()
    })
}

#[test]
fn sql_sees_each_row_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let kubernetes = &tables()[0];
    let second = 1_000_000;
    for seal in 0..3 {
        let rows: Vec<_> = (0..100)
            .map(|n| {
                let (offset, verb) = (seal * 100 + n, if n % 4 == 0 { "get" } else { "list" });
                row(offset * second, offset, format!(r#"{{"verb":"{verb}","code":{n},"ips":["10.0.0.{n}"]}}"#))
            })
            .collect();
        store.append(&unit(kubernetes, &rows)).unwrap();
        if seal < 2 {
            store.seal().unwrap();
        }
    }
    let check = |query: &str, expected| assert_eq!(sql(&store, query), expected, "{query}");
    check("SELECT count(*) FROM kubernetes", 300);
    check("SELECT count(*) FROM committed", 200);
    check("SELECT count(*) FROM kubernetes WHERE verb = 'get'", 75);
    check("SELECT sum(code) FROM kubernetes WHERE verb = 'list' AND code < 3", 9);
    check("SELECT count(*) FROM kubernetes WHERE time >= '1970-01-01T00:04:50Z'", 10);
    check("SELECT count(*) FROM committed WHERE time < '1970-01-01T00:00:10Z' AND raw LIKE '%get%'", 3);
    check("SELECT count(*) FROM committed WHERE time > '1971-01-01'", 0);
    check("SELECT count(*) FROM kubernetes WHERE array_has(ips, '10.0.0.7')", 3);
    check("SELECT count(*) FROM (SELECT raw FROM kubernetes LIMIT 7)", 7);
    check("SELECT count(*) FROM kubernetes a JOIN committed b ON a.event_uid = b.event_uid", 200);
    drop(store);
    let reader = Store::open_read_only(dir.path(), tables()).unwrap();
    assert_eq!(sql(&reader, "SELECT count(*) FROM kubernetes"), 200);
}
