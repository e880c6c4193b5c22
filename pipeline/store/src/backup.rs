//! Backup of a data directory while its owner runs, and the way back.
//!
//! What is copied when decides what the copy can be trusted with. Segments cannot go while this process reads. The
//! databases that follow the store (alerts, ledgers) are copied before the manifest, so that no boundary they know is
//! ahead of it. Files of the embedded log are opened before and copied after the manifest: what it does not yet cover
//! is in the copy, even if the owner trims its log meanwhile; a record that was being written is cut like after a crash.
//! What is remembered of expired rows is copied after the manifest: what it does not name any more is remembered there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use event::Micros;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::files::{copy, copy_open, is_vacant, sync_names, tree};
use crate::lease::Readers;
use crate::manifest::{FILE as MANIFEST, FORMAT, Manifest};
use crate::segment::{META, SegmentMeta};

/// Written last: a folder without it is not a whole backup.
pub const BACKUP: &str = "backup.json";

/// Not part of a backup: locks, SQLite's own files (their content is in the copies), what was set aside, caches.
const LEFT_OUT: [&str; 5] = ["lease", "readers", "segments", "quarantine", DERIVED];

/// A cache of what rules remember: made again from the rest.
pub const DERIVED: &str = "derived";

/// What rules remember of rows that have expired.
pub const RETAINED: &str = "retained";

const LOG: &str = "log";

/// What `backup.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub format: u32,
    /// When it was begun, microseconds UTC.
    pub begun: Micros,
    /// Number of the last commit in it.
    pub sequence: u64,
    pub segments: u64,
    pub files: u64,
    pub bytes: u64,
}

/// Copies the data directory `dir`, which may be in use, into `target`, which must be absent or empty. With `link`
/// the files of segments become hard links where the file system can (a copy on the same disk that costs no space and
/// does not survive the disk). `progress` hears how many of how many segments are done.
pub fn backup(
    dir: &Path,
    target: &Path,
    link: bool,
    now: Micros,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Backup, StoreError> {
    let dir = dir.canonicalize().map_err(StoreError::io("open", dir))?;
    require_vacant(target)?;
    fs::create_dir_all(target).map_err(StoreError::io("create", target))?;
    let _readers = Readers::join(&dir)?;
    let mut made = Backup { format: FORMAT, begun: now, sequence: 0, segments: 0, files: 0, bytes: 0 };
    copy_others(&dir, target, &mut made)?;
    let mut log = BTreeMap::new();
    open_log(&dir, &mut log)?;
    made.count(copy_database(&dir.join(MANIFEST), &target.join(MANIFEST))?);
    open_log(&dir, &mut log)?;
    for (path, file) in &log {
        let to = target.join(LOG).join(path);
        made.count(copy_open(file, &to).map_err(StoreError::io("copy to", &to))?);
    }
    copy_retained(&dir, target, &mut made)?;
    let contents = Manifest::open_read_only(target)?.contents()?;
    made.sequence = contents.sequence;
    made.segments = contents.segments.len() as u64;
    for (done, named) in contents.segments.iter().enumerate() {
        progress(done as u64, made.segments);
        let folder = Path::new("segments").join(&named.table).join(&named.ulid);
        copy_segment(&dir.join(&folder), &target.join(&folder), link, &mut made)?;
    }
    remove_sqlite_leftovers(target)?;
    let sync = || -> io::Result<()> {
        sync_names(target)?;
        let description = serde_json::to_vec_pretty(&made).expect("plain values always serialize");
        copy_bytes(&description, &target.join(BACKUP))?;
        File::open(target)?.sync_all()
    };
    sync().map_err(StoreError::io("finish the backup", target))?;
    Ok(made)
}

/// Copies a backup into `dir`, which must be absent or empty. It appears under its name when it is whole.
pub fn restore(from: &Path, dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Backup, StoreError> {
    let description = from.join(BACKUP);
    let not_one = |what: String| StoreError::NotABackup { dir: from.to_owned(), what };
    let bytes = fs::read(&description).map_err(|error| not_one(format!("{BACKUP}: {error}")))?;
    let made: Backup = serde_json::from_slice(&bytes).map_err(|error| not_one(format!("{BACKUP}: {error}")))?;
    if made.format > FORMAT {
        return Err(StoreError::Newer { dir: from.to_owned(), found: made.format, known: FORMAT });
    }
    require_vacant(dir)?;
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    let unfinished = dir.with_file_name(name);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(StoreError::io("remove", &unfinished))?;
    }
    let files = tree(from).map_err(StoreError::io("list", from))?;
    for (done, file) in files.iter().enumerate().filter(|(_, file)| *file != Path::new(BACKUP)) {
        progress(done as u64, files.len() as u64);
        let to = unfinished.join(file);
        copy(&from.join(file), &to, false).map_err(StoreError::io("copy to", &to))?;
    }
    let place = || -> io::Result<()> {
        sync_names(&unfinished)?;
        fs::rename(&unfinished, dir)?;
        File::open(dir.canonicalize()?.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    place().map_err(StoreError::io("restore to", dir))?;
    Ok(made)
}

impl Backup {
    fn count(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

fn require_vacant(dir: &Path) -> Result<(), StoreError> {
    match is_vacant(dir).map_err(StoreError::io("look into", dir))? {
        true => Ok(()),
        false => Err(StoreError::NotEmpty { dir: dir.to_owned() }),
    }
}

/// Everything beside segments, log and manifest: databases as SQLite copies them, other files as they are.
fn copy_others(dir: &Path, target: &Path, made: &mut Backup) -> Result<(), StoreError> {
    let reading = |error| StoreError::io("list", dir)(error);
    for entry in fs::read_dir(dir).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let (from, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if LEFT_OUT.contains(&&*name) || [LOG, MANIFEST, RETAINED].contains(&&*name) || is_sqlite_leftover(&name) {
            continue;
        }
        let kind = entry.file_type().map_err(reading)?;
        let below =
            if kind.is_dir() { tree(&from).map_err(StoreError::io("list", &from))? } else { vec![PathBuf::new()] };
        if !kind.is_dir() && !kind.is_file() {
            continue;
        }
        for file in below {
            let relative = Path::new(&*name).join(&file);
            let relative = if file.as_os_str().is_empty() { PathBuf::from(&*name) } else { relative };
            let (from, to) = (dir.join(&relative), target.join(&relative));
            let bytes = match is_database(&from) {
                true => copy_database(&from, &to)?,
                false => copy(&from, &to, false).map_err(StoreError::io("copy to", &to))?,
            };
            made.count(bytes);
        }
    }
    Ok(())
}

fn copy_retained(dir: &Path, target: &Path, made: &mut Backup) -> Result<(), StoreError> {
    let from = dir.join(RETAINED);
    let files = match tree(&from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(StoreError::io("list", &from))?,
    };
    // One that is being written is not there yet.
    for file in files.iter().filter(|file| file.extension().is_none_or(|extension| extension != "new")) {
        let to = target.join(RETAINED).join(file);
        match copy(&from.join(file), &to, false) {
            // Nobody has used it for long, since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => made.count(other.map_err(StoreError::io("copy to", &to))?),
        }
    }
    Ok(())
}

fn is_sqlite_leftover(name: &str) -> bool {
    ["-wal", "-shm", "-journal"].iter().any(|suffix| name.ends_with(suffix))
}

fn is_database(path: &Path) -> bool {
    let mut head = [0; 16];
    let read = File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut head));
    read.is_ok() && head == *b"SQLite format 3\0"
}

/// One consistent state of a database that others write to; durable. Returns the bytes of the copy.
fn copy_database(from: &Path, to: &Path) -> Result<u64, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(from, flags)?;
    db.busy_timeout(crate::manifest::BUSY_WAIT)?;
    db.execute("VACUUM INTO ?", [to.to_string_lossy()])?;
    let permissions = fs::metadata(from).and_then(|from| fs::set_permissions(to, from.permissions()));
    permissions.map_err(StoreError::io("copy to", to))?;
    let synced = File::open(to).and_then(|file| file.sync_all().and_then(|()| file.metadata()));
    Ok(synced.map_err(StoreError::io("copy to", to))?.len())
}

/// Looking at the copy may leave SQLite's files beside it.
fn remove_sqlite_leftovers(target: &Path) -> Result<(), StoreError> {
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(target.join(format!("{MANIFEST}{suffix}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("finish", target)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Open files of the log that are not known yet: an open file stays readable when its name goes.
fn open_log(dir: &Path, open: &mut BTreeMap<PathBuf, File>) -> Result<(), StoreError> {
    let log = dir.join(LOG);
    let files = match tree(&log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(StoreError::io("list", &log))?,
    };
    for path in files {
        let full = log.join(&path);
        match File::open(&full) {
            Ok(file) => {
                open.entry(path).or_insert(file);
            }
            // Trimmed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("open", &full)(error)),
        }
    }
    Ok(())
}

/// The files that its description names, and the description.
fn copy_segment(from: &Path, to: &Path, link: bool, made: &mut Backup) -> Result<(), StoreError> {
    let damaged = |what: String| StoreError::Damaged { segment: from.display().to_string(), what };
    let bytes = fs::read(from.join(META)).map_err(|error| damaged(format!("{META}: {error}")))?;
    let meta: SegmentMeta = serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{META}: {error}")))?;
    for name in meta.files.iter().map(|file| file.name.as_str()).chain([META]) {
        let to = to.join(name);
        made.count(copy(&from.join(name), &to, link).map_err(StoreError::io("copy to", &to))?);
    }
    Ok(())
}

fn copy_bytes(bytes: &[u8], to: &Path) -> io::Result<()> {
    let mut file = File::create_new(to)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}
