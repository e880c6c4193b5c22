//! State tables kept on disk, so that a start reads what came since and not everything that is stored. It is a cache of
//! what stored rows said: made from committed rows alone, and not used when another build, other files or a damaged disk
//! stand between then and now. It may be removed at any time.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::ARROW_VERSION;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use event::{Micros, Offsets, Origin, Partition, RowHash, Watermarks};
use serde::{Deserialize, Serialize};

use super::disk;
use super::mark::Mark;
use super::sieve::Failed;
use super::state::StateTable;
use super::tables::load_versions;
use super::versions::{Version, Versions};
use super::{BEHIND_US, STATE_BYTES_MAX, of_table};
use crate::error::DetectError;
use crate::fault::{self, Fault};
use crate::history::History;
use crate::ident::Identity;
use crate::offsets::since;
use crate::ruleset::RuleSet;

/// A table that takes longer to read is worth keeping at once.
const WORTH_KEEPING: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });

const FORMAT: u32 = 2;
const EXTENSION: &str = "versions";

#[derive(Debug)]
pub struct Derived {
    dir: PathBuf,
    /// Of the program: what one makes of a row, another may not.
    build: String,
    /// A start and new rules keep what took long, the keeper all of it: one after the other.
    writing: Mutex<()>,
}

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    /// What it was made by and of.
    of: String,
    /// Topic, partition and the first offset that is not in it.
    next: Vec<(String, i32, i64)>,
    floor: Micros,
    /// BLAKE3 of what follows.
    content: String,
}

/// A state table as it is, and whether that took long.
pub struct Came {
    pub versions: Versions,
    pub failed: Failed,
    /// Beyond the budget of a state table: not all of it is here.
    pub is_too_much: bool,
    reading: Duration,
}

impl Came {
    /// Of all that is stored.
    pub async fn from_the_store(state: &StateTable, stored: &SessionContext) -> Result<Came> {
        Came::since(&Offsets::default(), Versions::default(), state, stored).await
    }

    /// Of what was kept and the rows that came since.
    async fn since(from: &Offsets, kept: Versions, state: &StateTable, stored: &SessionContext) -> Result<Came> {
        let started = Instant::now();
        // What is stamped up to the floor it has seen; how a key ended that is gone since, it no longer knows.
        let known = if fault::is(Fault::EndForgotten) { Micros::MIN } else { kept.floor() };
        let (more, failed) = load_versions(state, stored, Origin::Live, &since(from), known).await?;
        let (mut versions, reading) = (kept, started.elapsed());
        let broken_off = more.bytes() > STATE_BYTES_MAX;
        versions.absorb(more);
        let is_too_much = broken_off || versions.bytes() > STATE_BYTES_MAX;
        Ok(Came { versions, failed, is_too_much, reading })
    }
}

impl Derived {
    /// In a folder of its own.
    pub fn new(dir: PathBuf, build: String) -> Derived {
        Derived { dir, build, writing: Mutex::default() }
    }

    /// For who must not know what is no longer stored.
    pub fn clear(&self) -> io::Result<()> {
        disk::clear(&self.dir)
    }

    /// All state tables that rules join, as of what is stored now. Returns how many were behind.
    pub async fn refresh(
        &self,
        rules: &RuleSet,
        (marks, committed): (&Watermarks, &Offsets),
        history: &dyn History,
    ) -> Result<usize, DetectError> {
        let stored = rules.stored(history)?;
        let mut behind = 0;
        for state in rules.states.iter().filter(|state| rules.joins(state)) {
            let (kept, from) = self.read(state, &rules.context, committed).unwrap_or_default();
            if from == *committed {
                continue;
            }
            let mut came = Came::since(&from, kept, state, &stored).await?;
            // As far back as the slowest rule may ask.
            came.versions.advance(of_table(&state.table, marks).saturating_sub(BEHIND_US));
            self.write(state, &rules.context, &came, committed);
            behind += 1;
        }
        self.remove_others(rules);
        Ok(behind)
    }

    /// Files of state tables that no rule joins any more.
    fn remove_others(&self, rules: &RuleSet) {
        let used: BTreeSet<PathBuf> = rules.states.iter().filter(|s| rules.joins(s)).map(|s| self.path(s)).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == EXTENSION) && !used.contains(&path) {
                drop(fs::remove_file(path));
            }
        }
    }

    /// What was kept, and the rows that came since.
    pub async fn come(
        &self,
        state: &StateTable,
        context: &str,
        committed: &Offsets,
        stored: &SessionContext,
    ) -> Result<Came> {
        let (kept, from) = self.read(state, context, committed).unwrap_or_default();
        Came::since(&from, kept, state, stored).await
    }

    /// Keeps what took long to read. `committed` is what was stored when reading began.
    pub fn keep(&self, state: &StateTable, context: &str, came: &Came, committed: &Offsets) {
        if came.reading >= WORTH_KEEPING {
            self.write(state, context, came, committed);
        }
    }

    fn of(&self, state: &StateTable, context: &str) -> String {
        let parts = [&self.build, ARROW_VERSION, context, &state.name, &state.version];
        parts.iter().fold(Identity::new(), |identity, part| identity.part(part.as_bytes())).version()
    }

    fn path(&self, state: &StateTable) -> PathBuf {
        self.dir.join(name_of(state))
    }

    fn read(&self, state: &StateTable, context: &str, committed: &Offsets) -> Option<(Versions, Offsets)> {
        let path = self.path(state);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return useless(&path, &error.to_string()),
        };
        let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let (head, body) = (&bytes[..line], bytes.get(line + 1..).unwrap_or_default());
        let head: Head = match serde_json::from_slice(head) {
            Ok(head) => head,
            Err(error) => return useless(&path, &format!("its first line: {error}")),
        };
        if head.format != FORMAT || head.of != self.of(state, context) {
            return None;
        }
        if blake3::hash(body).to_hex().as_str() != head.content {
            return useless(&path, "it does not have the bytes that were written");
        }
        let from = head.next.into_iter().map(|(topic, partition, next)| ((topic.into(), partition), next)).collect();
        let from = Offsets(from);
        // A store that is further back is another one, restored from a backup perhaps.
        let is_ahead = |(partition, next): (&Partition, &i64)| committed.0.get(partition).is_none_or(|n| n < next);
        if from.0.iter().any(is_ahead) {
            return None;
        }
        match decode(body) {
            Some(keys) => Some((Versions::restored(keys, head.floor), from)),
            None => useless(&path, "it cannot be read"),
        }
    }

    fn write(&self, state: &StateTable, context: &str, came: &Came, committed: &Offsets) {
        // What was too much was not read to its end.
        if came.is_too_much {
            return;
        }
        let versions = &came.versions;
        let body = encode(versions);
        let more = if fault::is(Fault::KeptTooFar) { 4 } else { 0 };
        let next = committed.0.iter().map(|((topic, partition), next)| (topic.to_string(), *partition, *next + more));
        let head = Head {
            format: FORMAT,
            of: self.of(state, context),
            next: next.collect(),
            floor: versions.floor(),
            content: blake3::hash(&body).to_hex().to_string(),
        };
        let head = serde_json::to_vec(&head).expect("plain values always serialize");
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = disk::replace(&self.dir, &name_of(state), &[&head, b"\n", &body]) {
            tracing::warn!(state = %state.name, "a state table could not be kept, a start will take longer: {error}");
        }
    }
}

fn name_of(state: &StateTable) -> String {
    format!("{}.{EXTENSION}", state.name)
}

fn useless<T>(path: &Path, why: &str) -> Option<T> {
    tracing::warn!(path = %path.display(), "a kept state table is read from the store instead: {why}");
    None
}

type Keys = Vec<(Box<[u8]>, Vec<Version>)>;

/// What the values of a version are.
const ENDED: u8 = 0;
const OTHER: u8 = 1;
/// As of the version before.
const SAME: u8 = 2;

fn encode(versions: &Versions) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(versions.bytes() / 2);
    for (key, versions) in versions.keys() {
        put(&mut bytes, key);
        bytes.extend_from_slice(&(versions.len() as u32).to_le_bytes());
        let mut before: Option<&Arc<[u8]>> = None;
        for Version { mark, values } in versions {
            bytes.extend_from_slice(&mark.time.to_le_bytes());
            bytes.extend_from_slice(&mark.stamp.to_le_bytes());
            bytes.extend_from_slice(&mark.hash);
            put(&mut bytes, mark.uid.as_bytes());
            match values {
                None => bytes.push(ENDED),
                Some(values) if before.is_some_and(|before| Arc::ptr_eq(before, values)) => bytes.push(SAME),
                Some(values) => {
                    bytes.push(OTHER);
                    put(&mut bytes, values);
                }
            }
            before = values.as_ref();
        }
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Keys> {
    let mut keys = Keys::new();
    while !bytes.is_empty() {
        let key = take(&mut bytes)?.into();
        let count = u32::from_le_bytes(*bytes.split_off(..4)?.as_array()?);
        let mut versions: Vec<Version> = Vec::new();
        for _ in 0..count {
            let time = Micros::from_le_bytes(*bytes.split_off(..8)?.as_array()?);
            let stamp = Micros::from_le_bytes(*bytes.split_off(..8)?.as_array()?);
            let hash: RowHash = *bytes.split_off(..size_of::<RowHash>())?.as_array()?;
            let uid = std::str::from_utf8(take(&mut bytes)?).ok()?.into();
            let values = match *bytes.split_off_first()? {
                ENDED => None,
                OTHER => Some(take(&mut bytes)?.into()),
                SAME => Some(versions.last()?.values.clone()?),
                _ => return None,
            };
            versions.push(Version { mark: Mark { time, uid, stamp, hash }, values });
        }
        keys.push((key, versions));
    }
    Some(keys)
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
    bytes.extend_from_slice(part);
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(*bytes.split_off(..4)?.as_array()?);
    bytes.split_off(..len as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Versions {
        let mark = |time: Micros, uid: &str| Mark { time, uid: uid.into(), stamp: time - 5, hash: [time as u8; 16] };
        let mut versions = Versions::default();
        for (n, key) in ["", "a", "long enough to be on the heap"].iter().enumerate() {
            let n = n as i64 * 100;
            versions.add(key.as_bytes(), mark(n, "u1"), Some(b"one"));
            versions.add(key.as_bytes(), mark(n + 1, "u2"), Some(b"one"));
            versions.add(key.as_bytes(), mark(n + 2, ""), None);
            versions.add(key.as_bytes(), mark(n + 3, "u4"), Some(b""));
        }
        versions
    }

    fn listed(versions: &Versions) -> Vec<String> {
        let mut all: Vec<String> = versions.keys().map(|(key, versions)| format!("{key:?} {versions:?}")).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn versions_come_back() {
        let before = versions();
        let bytes = encode(&before);
        let after = Versions::restored(decode(&bytes).unwrap(), 7);
        assert_eq!(listed(&after), listed(&before));
        assert_eq!((after.bytes(), after.floor()), (before.bytes(), 7));
        // Cut anywhere it is less or nothing, never a panic.
        (0..bytes.len()).for_each(|len| drop(decode(&bytes[..len])));
    }
}
