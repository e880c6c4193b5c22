//! A disk in memory that loses power. It keeps what was promised (synced content, names synced with their folder)
//! and, on [`PowerLoss::crash`], does its worst with the rest by a seeded random: unsynced content is kept, cut,
//! left as zeros or as garbage sector by sector, unsynced names stay or go. Folders themselves always survive.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::{FileHandle, FileLayer};

/// The unit that a disk writes whole. Real ones have 512 or 4096 bytes; small ones make tears likelier.
const SECTOR_BYTES: usize = 64;

/// Clones share the disk.
#[derive(Clone)]
pub struct PowerLoss(Arc<Mutex<Machine>>);

struct Machine {
    random: Random,
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since their folder was synced, oldest first.
    unsynced: Vec<(PathBuf, Option<usize>)>,
    contents: Vec<Content>,
    locks: Vec<PathBuf>,
    /// Operations until the power fails.
    fuse: Option<u64>,
    /// Bytes that still fit.
    room: Option<u64>,
    off: bool,
    /// Counts deaths: handles opened before the last one are dead.
    boot: u64,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

impl PowerLoss {
    pub fn new(seed: u64) -> Self {
        PowerLoss(Arc::new(Mutex::new(Machine {
            random: Random(seed),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            unsynced: Vec::new(),
            contents: Vec::new(),
            locks: Vec::new(),
            fuse: None,
            room: None,
            off: false,
            boot: 0,
        })))
    }

    /// The power fails during the operation after the next `operations`: that one is done in part, it and all
    /// later ones fail until [`PowerLoss::crash`] or [`PowerLoss::kill`].
    pub fn fail_after(&self, operations: u64) {
        self.machine().fuse = Some(operations);
    }

    /// Only the process dies: everything written is still there, synced or not.
    pub fn kill(&self) {
        self.machine().start_over();
    }

    /// Power comes back: what was not synced is lost, torn or kept, as chance has it.
    pub fn crash(&self) {
        self.machine().crash();
    }

    /// The disk takes so many more bytes; an append beyond them is done in part and fails. `None`: space is back.
    pub fn fill(&self, room: Option<u64>) {
        self.machine().room = room;
    }

    /// Flips one bit of synced content, as a bad disk does.
    pub fn damage(&self, path: &Path, byte: usize) {
        let machine = &mut *self.machine();
        let content = &mut machine.contents[machine.names[path]];
        content.now[byte] ^= 1;
        content.synced.clone_from(&content.now);
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    /// Counts one operation; true: the power fails during it.
    fn step(&mut self) -> io::Result<bool> {
        if self.off {
            return Err(no_power());
        }
        match &mut self.fuse {
            Some(0) => {
                self.off = true;
                Ok(true)
            }
            Some(left) => {
                *left -= 1;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// An operation that happens whole or not at all.
    fn whole(&mut self) -> io::Result<()> {
        if self.step()? { Err(no_power()) } else { Ok(()) }
    }

    fn set_name(&mut self, path: &Path, content: Option<usize>) {
        match content {
            Some(id) => self.names.insert(path.to_owned(), id),
            None => self.names.remove(path),
        };
        self.unsynced.push((path.to_owned(), content));
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn crash(&mut self) {
        // A folder's changes reach the disk in order, as far as they get.
        let kept = self.random.below(self.unsynced.len() as u64 + 1) as usize;
        let unsynced = std::mem::take(&mut self.unsynced);
        for (path, content) in unsynced.into_iter().take(kept) {
            apply(&mut self.synced_names, path, content);
        }
        self.names.clone_from(&self.synced_names);
        for content in &mut self.contents {
            content.now = tear(&content.synced, &content.now, &mut self.random);
            content.synced.clone_from(&content.now);
        }
        self.start_over();
    }

    fn start_over(&mut self) {
        self.locks.clear();
        self.fuse = None;
        self.room = None;
        self.off = false;
        self.boot += 1;
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, path: PathBuf, content: Option<usize>) {
    match content {
        Some(id) => names.insert(path, id),
        None => names.remove(&path),
    };
}

/// What is found after power loss where `now` had been written over `synced` (files only grow or are cut).
fn tear(synced: &[u8], now: &[u8], random: &mut Random) -> Vec<u8> {
    if now.len() < synced.len() {
        return if random.below(2) == 0 { synced.to_vec() } else { now.to_vec() };
    }
    let unsynced = (now.len() - synced.len()) as u64;
    let size = synced.len() + random.below(unsynced + 1) as usize;
    let mut found = now[..size].to_vec();
    for sector in found[synced.len()..].chunks_mut(SECTOR_BYTES) {
        match random.below(4) {
            0 => sector.fill(0),
            1 => sector.iter_mut().for_each(|byte| *byte = random.next() as u8),
            _ => {}
        }
    }
    found
}

fn no_power() -> io::Error {
    io::Error::other("no power")
}

impl FileLayer for PowerLoss {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.machine().whole()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let machine = &mut *self.machine();
        machine.whole()?;
        for (path, content) in std::mem::take(&mut machine.unsynced) {
            if path.parent() == Some(dir) {
                apply(&mut machine.synced_names, path, content);
            } else {
                machine.unsynced.push((path, content));
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let machine = self.machine();
        let inside = machine.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let mut names: Vec<String> = inside
            .filter_map(|rest| rest.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let machine = &mut *self.machine();
        machine.whole()?;
        if machine.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = machine.contents.len();
        machine.contents.push(Content::default());
        machine.set_name(path, Some(id));
        Ok(Box::new(Handle { disk: self.clone(), id, boot: machine.boot }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let machine = &mut *self.machine();
        let id = machine.find(path)?;
        Ok(Box::new(Handle { disk: self.clone(), id, boot: machine.boot }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let machine = &mut *self.machine();
        machine.whole()?;
        let id = machine.find(from)?;
        machine.set_name(to, Some(id));
        machine.set_name(from, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let machine = &mut *self.machine();
        machine.whole()?;
        machine.find(path)?;
        machine.set_name(path, None);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let machine = &mut *self.machine();
        if machine.locks.iter().any(|held| held == path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        machine.locks.push(path.to_owned());
        Ok(Box::new(Lock { disk: self.clone(), path: path.to_owned(), boot: machine.boot }))
    }
}

struct Lock {
    disk: PowerLoss,
    path: PathBuf,
    boot: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut machine = self.disk.machine();
        if machine.boot == self.boot {
            machine.locks.retain(|held| *held != self.path);
        }
    }
}

struct Handle {
    disk: PowerLoss,
    id: usize,
    boot: u64,
}

impl Handle {
    fn machine(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = self.disk.machine();
        if machine.boot == self.boot { Ok(machine) } else { Err(no_power()) }
    }
}

impl FileHandle for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.machine()?.contents[self.id].now.len() as u64)
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let machine = self.machine()?;
        let content = &machine.contents[self.id].now;
        let rest = content.get(at as usize..).unwrap_or_default();
        let size = rest.len().min(buffer.len());
        buffer[..size].copy_from_slice(&rest[..size]);
        Ok(size)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let machine = &mut *self.machine()?;
        let failing = machine.step()?;
        let fits = machine.room.map_or(bytes.len(), |room| bytes.len().min(room as usize));
        let written = if failing { machine.random.below(fits as u64 + 1) as usize } else { fits };
        machine.contents[self.id].now.extend_from_slice(&bytes[..written]);
        machine.room = machine.room.map(|room| room - written as u64);
        match (failing, written < bytes.len()) {
            (true, _) => Err(no_power()),
            (false, true) => Err(io::ErrorKind::StorageFull.into()),
            (false, false) => Ok(()),
        }
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let machine = &mut *self.machine()?;
        machine.whole()?;
        machine.contents[self.id].now.truncate(size as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let machine = &mut *self.machine()?;
        machine.whole()?;
        let content = &mut machine.contents[self.id];
        content.synced.clone_from(&content.now);
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): tiny, seeded, good enough to choose faults.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
