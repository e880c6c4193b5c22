//! Verify, quarantine, backup and restore.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{found, open, row, tables, unit};
use crate::{BACKUP, Store, StoreError, StoreOptions, Verified, backup, quarantine, restore};

fn filled(dir: &Path, seals: i64) -> Store {
    let store = open(dir);
    for n in 0..seals {
        append(&store, n);
        store.seal().unwrap();
    }
    store
}

/// Two rows of each of two tables.
fn append(store: &Store, n: i64) {
    for (at, table) in tables().iter().take(2).enumerate() {
        let first = n * 4 + at as i64 * 2;
        let rows: Vec<_> = (first..first + 2).map(|o| row(o, o, format!("{{\"n\":{o}}}"))).collect();
        store.append(&unit(table, &rows)).unwrap();
    }
}

fn verified(dir: &Path) -> Verified {
    crate::verify(dir, &tables(), &mut |_, _| {}).unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(dir.join("segments/kubernetes")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[test]
fn verify_counts_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), 3);
    append(&store, 3);
    let report = verified(dir.path());
    assert_eq!(report.problems, []);
    assert_eq!(report.owner, Some(std::process::id()));
    assert_eq!((report.sequence, report.segments, report.rows, report.partitions), (3, 6, 12, 1));
    assert_eq!(report.tables["kubernetes"], (3, 6));
    assert_eq!(report.disk_bytes, store.stats().unwrap().disk_bytes);
    drop(store);
    assert_eq!(verified(dir.path()).owner, None);
}

#[test]
fn verify_finds_each_kind_of_damage() {
    let flip = |file: &'static str| {
        move |dir: &Path| {
            let path = segments(dir)[0].join(file);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            fs::write(path, bytes).unwrap();
        }
    };
    let statement = |sql: &'static str| {
        move |dir: &Path| rusqlite::Connection::open(dir.join("manifest.db")).unwrap().execute_batch(sql).unwrap()
    };
    let check = |damage: &dyn Fn(&Path), expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path(), 2));
        damage(dir.path());
        let problems = verified(dir.path()).problems;
        assert!(problems.iter().any(|problem| problem.what.contains(expected)), "{expected}: {problems:?}");
    };
    check(&flip("data.parquet"), "data.parquet does not have the bytes that were written");
    check(&flip("index/paths.bin"), "paths.bin does not have the bytes");
    check(&flip("meta.json"), "meta.json");
    check(&|dir| fs::remove_file(segments(dir)[0].join("data.parquet")).unwrap(), "data.parquet is missing");
    check(&|dir| fs::remove_dir_all(&segments(dir)[1]).unwrap(), "meta.json is missing");
    check(
        &|dir| fs::create_dir(dir.join("segments/kubernetes/01ARZ3NDEKTSV4RRFFQ69G5FAV")).unwrap(),
        "is in no commit",
    );
    check(&statement("UPDATE offsets SET next = 5"), "which the manifest has not committed (next is 5)");
    // The same rows once more, as a second segment.
    let twice = |dir: &Path| {
        let store = open(dir);
        store.append(&unit(&tables()[0], &[row(0, 8, "{\"n\":0}")])).unwrap();
        store.seal().unwrap();
    };
    check(&twice, "kubernetes: 1 rows are stored more than once");
    let again = |dir: &Path| {
        statement("DELETE FROM offsets")(dir);
        let store = open(dir);
        store.append(&unit(&tables()[0], &[row(0, 0, "{\"other\":0}")])).unwrap();
        store.seal().unwrap();
        drop(store);
        statement("UPDATE offsets SET next = 99")(dir);
    };
    check(&again, "are also in segment");
}

#[test]
fn a_quarantined_segment_lets_the_store_open_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 2));
    fs::write(segments(dir.path())[0].join("data.parquet"), "short").unwrap();
    let error = Store::open(dir.path(), tables(), StoreOptions::default()).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let damaged: Vec<_> = verified(dir.path()).problems.into_iter().filter_map(|problem| problem.segment).collect();
    assert_eq!(damaged.len(), 1);
    let aside = quarantine(dir.path(), &damaged).unwrap();
    assert_eq!(fs::read_dir(aside).unwrap().count(), 1);
    let store = open(dir.path());
    assert_eq!(found(&store, "*").len(), 6);
    assert_eq!(store.offsets().unwrap().next(super::TOPIC, 0), Some(8), "its events are not read again");
    let error = quarantine(dir.path(), &damaged).unwrap_err();
    assert!(matches!(error, StoreError::Leased { .. }), "{error}");
}

#[test]
fn a_manifest_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 1));
    rusqlite::Connection::open(dir.path().join("manifest.db"))
        .unwrap()
        .pragma_update(None, "user_version", 77)
        .unwrap();
    for error in [
        Store::open(dir.path(), tables(), StoreOptions::default()).err().unwrap(),
        Store::open_read_only(dir.path(), tables()).err().unwrap(),
        crate::verify(dir.path(), &tables(), &mut |_, _| {}).err().unwrap(),
        crate::Holds::open(dir.path()).err().unwrap(),
    ] {
        assert!(matches!(error, StoreError::Newer { found: 77, .. }), "{error}");
    }
}

#[test]
fn a_backup_of_a_running_store_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let (dir, copies) = (root.path().join("data"), root.path().join("copies"));
    let store = filled(&dir, 3);
    // A follower of the store and the embedded log, as a run has them.
    let alerts = rusqlite::Connection::open(dir.join("alerts.db")).unwrap();
    alerts.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE frontier (sequence INTEGER)").unwrap();
    fs::create_dir_all(dir.join("log/kubernetes")).unwrap();
    fs::write(dir.join("log/kubernetes/00000000000000000000.log"), b"record").unwrap();
    fs::write(dir.join("pager.secret"), b"secret").unwrap();
    fs::set_permissions(dir.join("pager.secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let done = AtomicBool::new(false);
    let backups: Vec<(u64, PathBuf)> = std::thread::scope(|scope| {
        let (store, alerts, done) = (&store, alerts, &done);
        scope.spawn(move || {
            let mut n = 3;
            while !done.load(Ordering::SeqCst) {
                append(store, n);
                let commit = store.seal().unwrap().unwrap();
                // Detection hears of a commit after it.
                alerts.execute("INSERT INTO frontier VALUES (?)", [commit.sequence as i64]).unwrap();
                let policy = crate::Compaction { inputs_min: 3, ..Default::default() };
                store.compact(&policy, 0, &|| false).unwrap();
                store.sweep().unwrap();
                n += 1;
            }
        });
        let backups = (0..6)
            .map(|n| {
                let target = copies.join(n.to_string());
                let made = backup(&dir, &target, n % 2 == 0, 7, &mut |_, _| {}).unwrap();
                (made.sequence, target)
            })
            .collect();
        done.store(true, Ordering::SeqCst);
        backups
    });
    drop(store);
    for (sequence, target) in &backups {
        let dir = root.path().join(format!("restored-{sequence}-{}", target.file_name().unwrap().display()));
        restore(target, &dir, &mut |_, _| {}).unwrap();
        let report = verified(&dir);
        assert_eq!((report.problems, report.sequence), (vec![], *sequence));
        let store = open(&dir);
        assert_eq!(found(&store, "*").len() as u64, sequence * 4, "every row of the last commit");
        assert_eq!(store.offsets().unwrap().next(super::TOPIC, 0), Some(*sequence as i64 * 4));
        let alerts = rusqlite::Connection::open(dir.join("alerts.db")).unwrap();
        let frontier: Option<i64> =
            alerts.query_row("SELECT max(sequence) FROM frontier", [], |row| row.get(0)).unwrap();
        assert!(frontier.unwrap_or(0) <= *sequence as i64, "alerts are never ahead of the store");
        assert_eq!(fs::read(dir.join("log/kubernetes/00000000000000000000.log")).unwrap(), b"record");
        assert_eq!(fs::metadata(dir.join("pager.secret")).unwrap().permissions().mode() & 0o777, 0o600);
        // And it goes on from there.
        append(&store, *sequence as i64);
        store.seal().unwrap();
    }
    let error = backup(&dir, &backups[0].1, false, 7, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    let error = restore(&backups[0].1, &dir, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    fs::remove_file(backups[0].1.join(BACKUP)).unwrap();
    let error = restore(&backups[0].1, &root.path().join("new"), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, StoreError::NotABackup { .. }), "{error}");
}
