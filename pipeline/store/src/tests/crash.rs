//! Power loss. On a disk that fails at a chosen operation and then loses or tears what was not synced, the committed
//! rows must be there exactly once after a restart, with their offsets, and nothing else. `STAKEOUT_POWER_CUTS=10000`
//! for the long run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::flaky::FlakyDisk;
use super::{Row, TOPIC, found, row, tables, unit};
use crate::{Compaction, Limits, Retention, Store, StoreOptions};

fn open(dir: &Path, disk: &FlakyDisk) -> Store {
    Store::open(dir, tables(), StoreOptions { disk: Arc::new(disk.clone()), ..StoreOptions::default() }).unwrap()
}

#[test]
fn a_failed_seal_leaves_everything_searchable_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FlakyDisk::default();
    let store = open(dir.path(), &disk);
    store.append(&unit(&tables()[0], &[row(1, 0, "{}")])).unwrap();
    for fuse in 0.. {
        disk.set_fuse(Some(fuse));
        let sealed = store.seal();
        disk.set_fuse(None);
        match sealed {
            Ok(commit) => {
                assert!(fuse > 10, "a seal takes more steps than {fuse}");
                assert_eq!(commit.unwrap().rows, 1 + fuse as u64);
                break;
            }
            Err(error) => assert!(error.to_string().contains("hint: free some space"), "{error}"),
        }
        let next = fuse as i64 + 1;
        store.append(&unit(&tables()[0], &[row(1, next, format!("{{\"n\":{next}}}"))])).unwrap();
        assert_eq!(found(&store, "*").len(), next as usize + 1);
    }
}

fn folders(dir: &Path) -> usize {
    let tables = fs::read_dir(dir.join("segments")).unwrap();
    tables.map(|table| fs::read_dir(table.unwrap().path()).unwrap().count()).sum()
}

/// The test of the test: without syncs, power loss after a commit is damage, and it is noticed.
#[test]
fn a_disk_that_does_not_sync_is_noticed() {
    let noticed = |seed: u64| {
        let dir = tempfile::tempdir().unwrap();
        let disk = FlakyDisk::default();
        let store = open(dir.path(), &disk);
        disk.0.lock().unwrap().deaf = true;
        store.append(&unit(&tables()[0], &[row(1, 0, "{}")])).unwrap();
        store.seal().unwrap();
        drop(store);
        disk.lose_power(&mut StdRng::seed_from_u64(seed));
        let again = Store::open(dir.path(), tables(), StoreOptions::default());
        again.is_err_and(|error| matches!(error, crate::StoreError::Damaged { .. }))
    };
    assert!((0..20).filter(|seed| noticed(*seed)).count() > 10);
}

/// A store and what must be in it.
struct World {
    dir: PathBuf,
    disk: FlakyDisk,
    store: Option<Store>,
    committed: BTreeSet<String>,
    tail: BTreeSet<String>,
    /// Committed, and including the tail.
    offset: i64,
    next: i64,
    rng: StdRng,
    merges: u64,
    expired: u64,
}

/// Ingest times in these tests are one second; long after it nothing is too young to go.
const NOW: i64 = 100_000_000_000;

impl World {
    fn new(dir: &Path, seed: u64) -> World {
        let disk = FlakyDisk::default();
        let store = Some(open(dir, &disk));
        let rng = StdRng::seed_from_u64(seed);
        let (committed, tail) = Default::default();
        let dir = dir.to_owned();
        World { dir, disk, store, committed, tail, offset: 0, next: 0, rng, merges: 0, expired: 0 }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn append(&mut self) {
        for table in tables().iter().take(self.rng.random_range(1..=3)) {
            let rows: Vec<Row> = (self.next..self.next + self.rng.random_range(1..4))
                .map(|offset| row(self.rng.random_range(0..100), offset, format!("{{\"n\":{offset}}}")))
                .collect();
            self.next += rows.len() as i64;
            self.tail.extend(rows.iter().map(|row| row.offset.to_string()));
            self.store().append(&unit(table, &rows)).unwrap();
        }
    }

    fn seal(&mut self) -> bool {
        let sealed = self.store().seal().is_ok();
        if sealed {
            self.committed.append(&mut self.tail);
            self.offset = self.next;
        }
        sealed
    }

    fn compact(&mut self) -> bool {
        let policy = Compaction { inputs_min: self.rng.random_range(2..6), ..Compaction::default() };
        // The clock of the rows: none is cold.
        let compacted = self.store().compact(&policy, 1_000_000, &|| false);
        self.merges += u64::from(matches!(compacted, Ok(Some(_))));
        compacted.is_ok()
    }

    /// Down to half of what is there.
    fn expire(&mut self) -> bool {
        let bytes = self.store().stats().unwrap().disk_bytes / 2;
        let retention = Retention { all: Limits { age: None, bytes: Some(bytes) }, ..Retention::default() };
        let expiring = self.store().expiring(&retention, NOW);
        let Ok(expired) = expiring.and_then(|expiring| self.store().remove(expiring)) else { return false };
        let left: BTreeSet<String> = found(self.store(), "*").into_iter().collect();
        let before = self.committed.len();
        self.committed.retain(|row| left.contains(row));
        assert_eq!(before - self.committed.len(), expired.rows as usize, "only what it says is gone");
        self.expired += expired.segments;
        true
    }

    /// One operation on a disk that may fail; false if it failed.
    fn step(&mut self) -> bool {
        let operation = self.rng.random_range(0..10);
        if operation < 4 {
            self.append();
            return true;
        }
        let fuse = self.rng.random_bool(0.6).then(|| self.rng.random_range(0..60));
        self.disk.set_fuse(fuse);
        match operation {
            4..7 => self.seal(),
            7 => self.compact(),
            8 if self.committed.len() > 60 => self.expire(),
            _ => self.store().sweep().is_ok(),
        }
    }

    /// The power goes, perhaps once more while the store is being opened again.
    fn cut(&mut self) -> u32 {
        let (db, wal) = (self.dir.join("manifest.db"), self.dir.join("manifest.db-wal"));
        // As SQLite leaves it when the power goes: not checkpointed, and something half written after the last frame.
        let torn = self.rng.random::<bool>().then(|| {
            let mut tail = vec![0; self.rng.random_range(0..9000)];
            match self.rng.random::<bool>() {
                true => self.rng.fill_bytes(&mut tail),
                false => tail = fs::read(&wal).unwrap_or_default().into_iter().skip(32).take(tail.len()).collect(),
            }
            (fs::read(&db).unwrap(), [fs::read(&wal).unwrap_or_default(), tail].concat())
        });
        self.store = None;
        if let Some((db_bytes, wal_bytes)) = torn {
            fs::write(&db, db_bytes).unwrap();
            fs::write(&wal, wal_bytes).unwrap();
            let _ = fs::remove_file(self.dir.join("manifest.db-shm"));
        }
        let mut cuts = 1;
        self.disk.lose_power(&mut self.rng);
        while self.rng.random_ratio(1, 4) {
            self.disk.set_fuse(Some(self.rng.random_range(0..12)));
            let options = StoreOptions { disk: Arc::new(self.disk.clone()), ..StoreOptions::default() };
            drop(Store::open(&self.dir, tables(), options));
            self.disk.lose_power(&mut self.rng);
            cuts += 1;
        }
        self.disk.set_fuse(None);
        self.store = Some(open(&self.dir, &self.disk));
        self.tail.clear();
        self.next = self.offset;
        cuts
    }

    fn check(&self, context: &str) {
        let expected: BTreeSet<String> = self.committed.iter().chain(&self.tail).cloned().collect();
        let rows = found(self.store(), "*");
        assert_eq!(rows.len(), expected.len(), "{context}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), expected, "{context}");
        let offsets = |offsets: event::Offsets| offsets.next(TOPIC, 0).unwrap_or(0);
        assert_eq!(offsets(self.store().offsets().unwrap()), self.offset, "{context}");
        assert_eq!(offsets(self.store().positions().unwrap()), self.next, "{context}");
    }
}

#[test]
fn committed_rows_survive_power_loss_exactly_once() {
    let wanted: u32 = std::env::var("STAKEOUT_POWER_CUTS").map_or(100, |cuts| cuts.parse().unwrap());
    let seed: u64 = std::env::var("STAKEOUT_SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&dir.path().join("data"), seed);
    let (mut cuts, mut steps, mut most, started) = (0, 0, 0, Instant::now());
    while cuts < wanted {
        steps += 1;
        let failed = !world.step();
        most = most.max(world.committed.len());
        if failed && world.rng.random_bool(0.7) || world.rng.random_ratio(1, 30) {
            cuts += world.cut();
            let context = format!("seed {seed}, step {steps}, after a power cut");
            world.store().verify().unwrap();
            assert_eq!(folders(&world.dir) as u64, world.store().stats().unwrap().segments, "{context}");
            if cuts % 16 == 0 {
                let verified = crate::verify(&world.dir, &tables(), &mut |_, _| {}).unwrap();
                assert_eq!(verified.problems, [], "{context}");
            }
            world.check(&context);
        } else {
            world.disk.set_fuse(None);
            if failed || steps % 4 == 0 {
                world.check(&format!("seed {seed}, step {steps}"));
            }
        }
    }
    println!(
        "{cuts} power cuts, {steps} steps, {} merges, {} segments expired, {most} rows at most, in {:.1} s",
        world.merges,
        world.expired,
        started.elapsed().as_secs_f64()
    );
    assert!(world.merges > 0 && world.expired > 0 && most > 60, "seed {seed}: too tame");
}
