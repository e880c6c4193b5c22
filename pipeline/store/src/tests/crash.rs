//! Power loss. A disk that fails at a chosen operation and then loses or tears what was not synced; after a restart
//! the committed rows must be there exactly once, with their offsets, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Row, TOPIC, found, row, tables, unit};
use crate::{Disk, OsDisk, Store, StoreOptions};

/// What a power loss may undo.
#[derive(Debug)]
enum Unsynced {
    Content(PathBuf),
    Entry(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default)]
struct Power {
    /// Operations until everything fails; `None`: never.
    fuse: Option<u32>,
    /// Syncs are not carried out.
    deaf: bool,
    unsynced: Vec<Unsynced>,
}

#[derive(Clone, Default)]
struct FlakyDisk(Arc<Mutex<Power>>);

impl FlakyDisk {
    fn step(&self) -> io::Result<()> {
        match &mut self.0.lock().unwrap().fuse {
            Some(0) => Err(io::Error::new(io::ErrorKind::StorageFull, "the fuse has blown")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn note(&self, what: Unsynced) {
        self.0.lock().unwrap().unsynced.push(what);
    }

    /// Synced: no longer at risk.
    fn forget(&self, synced: impl Fn(&Unsynced) -> bool) {
        let mut power = self.0.lock().unwrap();
        if !power.deaf {
            power.unsynced.retain(|what| !synced(what));
        }
    }

    fn set_fuse(&self, fuse: Option<u32>) {
        self.0.lock().unwrap().fuse = fuse;
    }

    /// Undoes a random part of what was not synced, latest first.
    fn lose_power(&self, rng: &mut StdRng) {
        let unsynced = std::mem::take(&mut self.0.lock().unwrap().unsynced);
        for what in unsynced.into_iter().rev() {
            if rng.random() {
                continue;
            }
            match what {
                Unsynced::Content(path) if path.exists() => {
                    let bytes = fs::read(&path).unwrap();
                    let kept = rng.random_range(0..=bytes.len());
                    fs::write(&path, &bytes[..kept]).unwrap();
                }
                Unsynced::Entry(path) if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
                Unsynced::Entry(path) if path.exists() => fs::remove_file(&path).unwrap(),
                Unsynced::Rename(from, to) if to.exists() => fs::rename(&to, &from).unwrap(),
                _ => {}
            }
        }
    }
}

impl Disk for FlakyDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let new: Vec<_> = path.ancestors().take_while(|p| !p.exists()).map(Path::to_owned).collect();
        new.into_iter().rev().for_each(|path| self.note(Unsynced::Entry(path)));
        OsDisk.create_dir_all(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.note(Unsynced::Entry(path.to_owned()));
        self.note(Unsynced::Content(path.to_owned()));
        OsDisk.write(path, bytes)?;
        self.step()
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.forget(|what| matches!(what, Unsynced::Content(p) if p == path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let inside = |what: &Unsynced| match what {
            Unsynced::Entry(p) | Unsynced::Rename(_, p) => p.parent() == Some(path),
            Unsynced::Content(_) => false,
        };
        self.forget(inside);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        OsDisk.rename(from, to)?;
        let mut power = self.0.lock().unwrap();
        for what in &mut power.unsynced {
            if let Unsynced::Content(path) | Unsynced::Entry(path) = what
                && let Ok(rest) = path.strip_prefix(from)
            {
                *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
        power.unsynced.push(Unsynced::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        OsDisk.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        OsDisk.list(path)
    }

    fn point(&self, _: &str) -> io::Result<()> {
        self.step()
    }
}

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

#[test]
fn committed_rows_survive_power_loss_exactly_once() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let disk = FlakyDisk::default();
    let mut store = open(dir.path(), &disk);
    let (mut committed, mut tail): (BTreeSet<String>, BTreeSet<String>) = Default::default();
    let (mut crashes, mut next) = (0, 0);
    for step in 0..250 {
        let mut crash = rng.random_ratio(1, 20);
        if rng.random_ratio(2, 3) {
            for table in tables().iter().take(rng.random_range(1..=3)) {
                let rows: Vec<Row> = (next..next + rng.random_range(1..4))
                    .map(|offset| row(rng.random_range(0..100), offset, format!("{{\"n\":{offset}}}")))
                    .collect();
                next += rows.len() as i64;
                tail.extend(rows.iter().map(|row| row.offset.to_string()));
                store.append(&unit(table, &rows)).unwrap();
            }
        } else {
            disk.set_fuse(rng.random::<bool>().then(|| rng.random_range(0..60)));
            match store.seal() {
                Ok(_) => committed.append(&mut tail),
                Err(_) => crash |= rng.random::<bool>(),
            }
            if !crash {
                disk.set_fuse(None);
            }
        }
        if crash {
            drop(store);
            disk.lose_power(&mut rng);
            disk.set_fuse(None);
            store = open(dir.path(), &disk);
            tail.clear();
            next = store.offsets().unwrap().next(TOPIC, 0).unwrap_or(0);
            crashes += 1;
            store.verify().unwrap();
            assert_eq!(folders(dir.path()) as u64, store.stats().unwrap().segments, "seed {seed}, step {step}");
        }
        let expected = committed.iter().chain(&tail).cloned().collect::<BTreeSet<_>>();
        let rows = found(&store, "*");
        assert_eq!(rows.len(), expected.len(), "seed {seed}, step {step}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), expected, "seed {seed}, step {step}");
        assert_eq!(next as usize, expected.len(), "offsets and rows agree: seed {seed}, step {step}");
    }
    assert!(crashes > 5 && committed.len() > 20, "seed {seed}: {crashes} crashes, {} rows", committed.len());
}
