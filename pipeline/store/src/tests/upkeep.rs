//! Merging and removing: nothing is lost, doubled or reordered, readers keep what they read, holds hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use datafusion::prelude::SessionContext;
use event::{RowKey, Seen};

use super::store::sql;
use super::{found, hash, open, row, tables, unit};
use crate::{Compaction, Expired, Holds, Limits, Retention, Store, StoreError};

fn policy(inputs_min: usize) -> Compaction {
    Compaction { inputs_min, ..Compaction::default() }
}

/// One segment per call, for each of two tables, with equal times to make order matter.
fn sealed(store: &Store, segments: i64) {
    let first = store.positions().unwrap().next(super::TOPIC, 0).unwrap_or(0);
    for n in 0..segments {
        for (at, table) in tables().iter().take(2).enumerate() {
            let offset = first + n * 6 + at as i64 * 3;
            let rows: Vec<_> = (offset..offset + 3)
                .map(|o| {
                    let verb = if o % 2 == 0 { "get" } else { "list" };
                    row(o / 7, o, format!(r#"{{"verb":"{verb}","code":{o},"user":{{"name":"u{o} a b"}}}}"#))
                })
                .collect();
            store.append(&unit(table, &rows)).unwrap();
        }
        store.seal().unwrap();
    }
}

fn folders(dir: &Path) -> usize {
    fs::read_dir(dir.join("segments/kubernetes")).unwrap().count()
}

#[test]
fn a_merge_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 9);
    let queries =
        ["*", "verb:get", "code:[10 TO 20]", "\"a b\"", "user.name:u3*", "NOT verb:list", "user.name:*", "/u1[0-9] a/"];
    let sqls = [
        "SELECT count(*) FROM kubernetes",
        "SELECT sum(code) FROM kubernetes WHERE verb = 'get'",
        "SELECT sum(\"offset\" * message_index + code) FROM committed WHERE time < '1970-01-01T00:00:00.000004Z'",
    ];
    let answers = |store: &Store| {
        let found: Vec<_> = queries.iter().map(|query| found(store, query)).collect();
        (found, sqls.map(|query| sql(store, query)))
    };
    let before = answers(&store);
    let mut merges = 0;
    while let Some(compacted) = store.compact(&policy(4), 0, &|| false).unwrap() {
        assert_eq!((compacted.inputs, compacted.rows), (9, 27));
        assert!(compacted.bytes_after < compacted.bytes_before);
        assert_eq!(answers(&store), before);
        merges += 1;
    }
    assert_eq!((merges, store.stats().unwrap().segments), (2, 2), "one a table");
    assert_eq!((folders(dir.path()), store.sweep().unwrap(), folders(dir.path())), (10, 0, 1));
    // What comes after a merge is after it in every order.
    sealed(&store, 4);
    let more = answers(&store);
    store.compact(&policy(4), 0, &|| false).unwrap().unwrap();
    assert_eq!(answers(&store), more);
    let keys: Vec<RowKey> = (0..6)
        .map(|o| {
            let verb = if o % 2 == 0 { "get" } else { "list" };
            let raw = format!(r#"{{"verb":"{verb}","code":{o},"user":{{"name":"u{o} a b"}}}}"#);
            RowKey { time: o / 7, hash: hash(&raw) }
        })
        .collect();
    assert_eq!(store.seen("kubernetes", &keys).unwrap(), [true, true, true, false, false, false]);
    assert_eq!(store.seen("cloudtrail", &keys).unwrap(), [false, false, false, true, true, true]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(answers(&store), more);
    assert_eq!(crate::verify(dir.path(), &tables(), &mut |_, _| {}).unwrap().problems, []);
}

#[test]
fn a_merge_that_is_stopped_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 4);
    for asked in 0.. {
        let count = std::cell::Cell::new(0);
        let stop = || {
            count.set(count.get() + 1);
            count.get() > asked
        };
        if store.compact(&policy(4), 0, &stop).unwrap().is_some() {
            assert!(asked > 4, "asked only {asked} times");
            break;
        }
        assert_eq!((folders(dir.path()), found(&store, "*").len()), (4, 24));
    }
}

#[test]
fn readers_keep_the_segments_that_they_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 4);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let session = SessionContext::new();
    session.register_table("kubernetes", store.table("kubernetes").unwrap()).unwrap();
    let plan = runtime.block_on(async {
        session.sql("SELECT raw FROM kubernetes").await.unwrap().create_physical_plan().await.unwrap()
    });
    let mut hits = super::hits(&store, "*");
    while store.compact(&policy(4), 0, &|| false).unwrap().is_some() {}
    assert_eq!((store.sweep().unwrap(), folders(dir.path())), (8, 5), "a plan and a search hold them");
    assert_eq!(hits.next().unwrap().unwrap().num_rows(), 24);
    drop(hits);
    assert_eq!(store.sweep().unwrap(), 4, "the plan still does");
    let rows: usize = runtime.block_on(async {
        let batches = datafusion::physical_plan::collect(plan, session.task_ctx()).await.unwrap();
        batches.iter().map(|batch| batch.num_rows()).sum()
    });
    assert_eq!((rows, store.sweep().unwrap(), folders(dir.path())), (12, 0, 1));
}

#[test]
fn a_process_beside_the_owner_keeps_folders_and_sees_the_merge() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 4);
    let beside = Store::open_read_only(dir.path(), tables()).unwrap();
    while store.compact(&policy(4), 0, &|| false).unwrap().is_some() {}
    assert_eq!((store.sweep().unwrap(), folders(dir.path())), (8, 5));
    assert_eq!((found(&beside, "*").len(), beside.stats().unwrap().segments), (24, 2), "noticed without a commit");
    // A restart does not take them away either.
    drop(store);
    let store = open(dir.path());
    assert_eq!(folders(dir.path()), 5);
    drop(beside);
    assert_eq!((store.sweep().unwrap(), folders(dir.path())), (0, 1));
}

#[test]
fn damage_is_not_merged_and_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 5);
    let mut segments: Vec<_> =
        fs::read_dir(dir.path().join("segments/kubernetes")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let file = segments[0].join("data.parquet");
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    let mut errors = Vec::new();
    for _ in 0..10 {
        match store.compact(&policy(4), 0, &|| false) {
            Ok(None) => break,
            Ok(Some(_)) => {}
            Err(error) => errors.push(error),
        }
    }
    assert!(matches!(errors.as_slice(), [StoreError::Damaged { .. }]), "{errors:?}");
    assert!(errors[0].to_string().contains("stakeout verify"), "{}", errors[0]);
    assert_eq!(store.stats().unwrap().segments, 3, "the damaged one, the rest of its table, and the other table");
}

fn bytes(bytes: u64) -> Retention {
    Retention { all: Limits { age: None, bytes: Some(bytes) }, ..Retention::default() }
}

fn expire(store: &Store, retention: &Retention, now: i64) -> Result<Expired, StoreError> {
    store.remove(store.expiring(retention, now)?)
}

/// Ingest times are one second.
const LATER: i64 = 100_000_000_000;

#[test]
fn retention_removes_whole_segments_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 4);
    let before = (store.offsets().unwrap(), store.watermarks().unwrap(), store.sequence().unwrap());
    assert_eq!(expire(&store, &Retention::default(), LATER).unwrap().segments, 0, "nothing is removed unasked");
    // Segments of a few rows differ by some bytes.
    let half = store.stats().unwrap().disk_bytes / 100 * 55;
    let expired = expire(&store, &bytes(half), LATER).unwrap();
    assert_eq!((expired.segments, expired.rows), (4, 12));
    assert_eq!(found(&store, "*").len(), 12);
    assert!(found(&store, "*").iter().all(|uid| uid.parse::<u32>().unwrap() >= 12), "the oldest went");
    assert_eq!((store.sweep().unwrap(), folders(dir.path())), (0, 2));
    assert_eq!((store.offsets().unwrap(), store.watermarks().unwrap(), store.sequence().unwrap()), before);
    let age = Retention {
        tables: BTreeMap::from([("cloudtrail".into(), Limits { age: Some(Duration::from_secs(3600)), bytes: None })]),
        ..Retention::default()
    };
    assert_eq!(expire(&store, &age, LATER).unwrap().segments, 2);
    assert_eq!((found(&store, "*").len(), sql(&store, "SELECT count(*) FROM kubernetes")), (6, 6));
    drop(store);
    assert_eq!(found(&open(dir.path()), "*").len(), 6);
}

#[test]
fn what_goes_is_shown_before_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 4);
    let all = store.expiring(&bytes(0), LATER).unwrap();
    assert_eq!(all.tables().len(), 2);
    assert_eq!(all.tables().iter().map(|table| all.stays(table)).min(), Some(i64::MAX), "nothing of them stays");
    // In commit order: those of the first two seals.
    let first = all.at_most(4);
    assert!(!first.is_empty() && store.expiring(&Retention::default(), LATER).unwrap().is_empty());
    let rows = |table: &str| {
        let session = SessionContext::new();
        session.register_table("gone", first.table(table).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { session.table("gone").await.unwrap().count().await.unwrap() })
    };
    let tables = first.tables();
    assert_eq!(tables.iter().map(|table| rows(table)).sum::<usize>(), 12);
    assert!(tables.iter().all(|table| first.stays(table) < i64::MAX));
    let expired = store.remove(first).unwrap();
    assert_eq!((expired.segments, expired.rows, found(&store, "*").len()), (4, 12, 12));
    assert!(found(&store, "*").iter().all(|uid| uid.parse::<u32>().unwrap() >= 12), "the oldest went");
}

#[test]
fn a_hold_blocks_removal_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 2);
    // Beside the running owner. Times are offset / 7: rows 0 to 6 have time 0.
    let mut holds = Holds::open(dir.path()).unwrap();
    let id = holds.add(0, 0, "case 17", "legal", 5).unwrap();
    for (first, last, reason, author) in [(1, 0, "x", "y"), (0, 1, " ", "y"), (0, 1, "x", "")] {
        assert!(holds.add(first, last, reason, author, 5).unwrap_err().to_string().contains("hint:"));
    }
    let expired = expire(&store, &bytes(0), LATER).unwrap();
    assert_eq!((expired.segments, expired.held), (1, 3));
    assert_eq!(found(&store, "*").len(), 9);
    holds.release(id, "judge", 6).unwrap();
    assert!(holds.release(id, "judge", 7).unwrap_err().to_string().contains("no hold 1 is in force"));
    assert_eq!(holds.list().unwrap()[0].released, Some((6, "judge".into())));
    assert_eq!(expire(&store, &bytes(0), LATER).unwrap().segments, 3);
    assert!(found(&store, "*").is_empty());
}

/// A merge that stands still must not hold up anything else.
#[test]
fn a_seal_does_not_wait_for_a_merge() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    sealed(&store, 8);
    let (entered, entering) = std::sync::mpsc::channel();
    let (leave, leaving) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let store = &store;
        let merge = scope.spawn(move || {
            let stop = || {
                let _ = entered.send(());
                // Until the other side hangs up.
                let _ = leaving.recv();
                false
            };
            store.compact(&policy(4), 0, &stop).unwrap().unwrap()
        });
        entering.recv().unwrap();
        sealed(store, 1);
        assert_eq!(found(store, "*").len(), 54);
        drop(leave);
        assert_eq!(merge.join().unwrap().inputs, 8);
    });
    assert_eq!(found(&store, "*").len(), 54);
    assert_eq!(store.stats().unwrap().segments, 11);
}
