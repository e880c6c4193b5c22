//! Upkeep of what is committed: merging small segments, removing expired ones, and removing folders that no reader
//! needs any more. Sealing goes on meanwhile: all that both wait for is the manifest's short transaction.
//!
//! A merge publishes its segment like a seal does, then one transaction names it in place of its inputs. Folders go
//! last: after the transaction, when no snapshot of this process holds the segment and no other process reads. A crash
//! in between leaves folders without a name, which the next start removes.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::catalog::TableProvider;
use event::Micros;
use ulid::Ulid;

use crate::compaction::{self, Compaction};
use crate::disk::Disk;
use crate::lease::Readers;
use crate::manifest::Named;
use crate::provider::{Provider, Which};
use crate::retention::{self, Retention};
use crate::segment::{Segment, SegmentMeta, index, merge, remove_leftover};
use crate::store::Inner;
use crate::{Store, StoreError, crash_point};

/// Segments that retention is about to remove.
pub struct Expiring {
    inner: Arc<Inner>,
    segments: Arc<Vec<Arc<Segment>>>,
    /// Segments that are past their time but held.
    held: u64,
}

impl Expiring {
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The names of the tables that lose rows.
    pub fn tables(&self) -> BTreeSet<String> {
        self.segments.iter().map(|segment| segment.meta.table.clone()).collect()
    }

    /// The oldest of them alone: a bounded piece of work. They are in commit order.
    pub fn at_most(mut self, segments: usize) -> Expiring {
        if self.segments.len() > segments {
            self.segments = Arc::new(self.segments[..segments].to_vec());
        }
        self
    }

    /// The lowest event time of what stays of a table; [`Micros::MAX`] if nothing does.
    pub fn stays(&self, table: &str) -> Micros {
        let goes: BTreeSet<&str> = self.segments.iter().map(|segment| segment.meta.ulid.as_str()).collect();
        let all = self.inner.read().segments.clone();
        let stays = all.iter().filter(|s| s.meta.table == table && !goes.contains(s.meta.ulid.as_str()));
        stays.map(|segment| segment.meta.time.first).min().unwrap_or(Micros::MAX)
    }

    /// Their rows of a table.
    pub fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>, StoreError> {
        let rows = Which::Segments(self.segments.clone());
        Ok(Arc::new(Provider::new(self.inner.clone(), self.inner.table(name)?.clone(), rows)))
    }
}

/// Kept by the store between rounds.
#[derive(Default)]
pub(crate) struct Upkeep {
    retired: Vec<Retired>,
    /// Names of segments whose bytes were found damaged: not merged again and again.
    damaged: HashSet<String>,
}

/// A folder without a name in the manifest, to be removed when nobody reads it.
struct Retired {
    folder: PathBuf,
    /// `None`: left by an earlier process.
    segment: Option<Arc<Segment>>,
}

/// One merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub table: String,
    pub inputs: usize,
    pub rows: u64,
    /// Of the events themselves.
    pub raw_bytes: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub took: Duration,
}

/// What retention removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    pub segments: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Segments that are past their time but held.
    pub held: u64,
}

impl Store {
    /// One merge, if some table has a run of segments worth it; `None` if not, or if `stop` said so on the way.
    pub fn compact(
        &self,
        policy: &Compaction,
        now: Micros,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Compacted>, StoreError> {
        let mut upkeep = self.upkeep()?;
        if !policy.on {
            return Ok(None);
        }
        let Some(inputs) = self.inner.choose(policy, now, &upkeep.damaged)? else { return Ok(None) };
        let started = Instant::now();
        let merged = self.inner.merge(&inputs, stop).inspect_err(|error| {
            if let StoreError::Damaged { segment, .. } = error {
                upkeep.damaged.insert(segment.clone());
            }
        })?;
        let Some(merged) = merged else { return Ok(None) };
        let compacted = Compacted {
            table: merged.meta.table.clone(),
            inputs: inputs.len(),
            rows: merged.meta.rows,
            raw_bytes: merged.meta.raw_bytes,
            bytes_before: inputs.iter().map(|input| input.meta.disk_bytes()).sum(),
            bytes_after: merged.meta.disk_bytes(),
            took: started.elapsed(),
        };
        self.inner.replace(&inputs, Some(merged));
        upkeep.retire(inputs);
        Ok(Some(compacted))
    }

    /// What is past its time and not held, to be looked at before it goes.
    pub fn expiring(&self, retention: &Retention, now: Micros) -> Result<Expiring, StoreError> {
        let mut expiring = Expiring { inner: self.inner.clone(), segments: Arc::default(), held: 0 };
        if retention.is_off() {
            return Ok(expiring);
        }
        let segments = self.inner.read().segments.clone();
        let metas: Vec<&SegmentMeta> = segments.iter().map(|segment| &segment.meta).collect();
        let holds = self.inner.manifest().holds()?;
        let expired = retention::expired(&metas, retention, &holds, now);
        let without_holds =
            if holds.is_empty() { expired.len() } else { retention::expired(&metas, retention, &[], now).len() };
        expiring.held = without_holds.saturating_sub(expired.len()) as u64;
        expiring.segments = Arc::new(expired.into_iter().map(|at| segments[at].clone()).collect());
        Ok(expiring)
    }

    /// Removes them from the manifest, whole segments, in one transaction. What is held meanwhile stays.
    pub fn remove(&self, Expiring { segments, held, .. }: Expiring) -> Result<Expired, StoreError> {
        let mut upkeep = self.upkeep()?;
        let mut expired = Expired { held, ..Expired::default() };
        if segments.is_empty() {
            return Ok(expired);
        }
        let point = |name| self.inner.options.disk.point(name).map_err(StoreError::io("expire from", &self.inner.dir));
        point("before-retention-delete")?;
        let spans: Vec<_> = segments.iter().map(|segment| (segment.meta.ulid.as_str(), segment.meta.time)).collect();
        let removed = self.inner.manifest().expire(&spans)?;
        crash_point("after-retention-delete");
        let gone: Vec<Arc<Segment>> = removed.into_iter().map(|at| segments[at].clone()).collect();
        for segment in &gone {
            expired.segments += 1;
            expired.rows += segment.meta.rows;
            expired.bytes += segment.meta.disk_bytes();
        }
        self.inner.replace(&gone, None);
        upkeep.retire(gone);
        Ok(expired)
    }

    /// Removes the folders of replaced and expired segments that nobody reads. Returns how many are left for later.
    pub fn sweep(&self) -> Result<usize, StoreError> {
        let mut upkeep = self.upkeep()?;
        upkeep.sweep(&*self.inner.options.disk, &self.inner.dir)?;
        Ok(upkeep.retired.len())
    }

    fn upkeep(&self) -> Result<MutexGuard<'_, Upkeep>, StoreError> {
        if self.is_read_only() {
            return Err(StoreError::ReadOnly);
        }
        Ok(self.inner.upkeep.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Upkeep {
    /// Orphans found at start.
    pub fn of_orphans(folders: Vec<PathBuf>) -> Upkeep {
        let retired = folders.into_iter().map(|folder| Retired { folder, segment: None }).collect();
        Upkeep { retired, damaged: HashSet::new() }
    }

    fn retire(&mut self, segments: Vec<Arc<Segment>>) {
        let retired = |segment: Arc<Segment>| Retired { folder: segment.dir.clone(), segment: Some(segment) };
        self.retired.extend(segments.into_iter().map(retired));
    }

    pub fn sweep(&mut self, disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
        if self.retired.is_empty() {
            return Ok(());
        }
        // Until the lock goes no process can start reading, and no reader that is there knows these names.
        let Some(_alone) = Readers::exclude(dir)? else { return Ok(()) };
        let mut left = Vec::new();
        let mut result = Ok(());
        for retired in std::mem::take(&mut self.retired) {
            let read = retired.segment.as_ref().is_some_and(|segment| Arc::strong_count(segment) > 1);
            if read || result.is_err() {
                left.push(retired);
            } else if let Err(error) = remove(disk, &retired.folder) {
                result = Err(StoreError::io("remove", &retired.folder)(error));
                left.push(retired);
            }
        }
        self.retired = left;
        result
    }
}

fn remove(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(disk.remove_dir_all(&folder.join(index::FOLDER)))?;
    disk.point("mid-removal")?;
    gone(disk.remove_dir_all(folder))
}

impl Inner {
    /// The inputs of the next merge: a run of one table that the policy picks, else a segment whose columns are not
    /// those of today.
    fn choose(
        &self,
        policy: &Compaction,
        now: Micros,
        damaged: &HashSet<String>,
    ) -> Result<Option<Vec<Arc<Segment>>>, StoreError> {
        let all = self.read().segments.clone();
        let mut outdated = None;
        for columns in self.columns.values() {
            let of: Vec<&Arc<Segment>> = all.iter().filter(|s| s.meta.table == columns.table.name).collect();
            let mut usable = Vec::with_capacity(of.len());
            for segment in &of {
                let lacks = !segment.lacking()?.is_empty();
                let whole = !damaged.contains(&segment.name()) && (!lacks || columns.recompute.is_some());
                usable.push(whole.then_some(&segment.meta));
                if whole && lacks {
                    outdated.get_or_insert_with(|| vec![(*segment).clone()]);
                }
            }
            if let Some(run) = compaction::pick(&usable, policy, now) {
                return Ok(Some(of[run].iter().map(|segment| (*segment).clone()).collect()));
            }
        }
        Ok(outdated)
    }

    /// Publishes the merged segment and names it in place of its inputs.
    fn merge(&self, inputs: &[Arc<Segment>], stop: &dyn Fn() -> bool) -> Result<Option<Arc<Segment>>, StoreError> {
        let disk = &*self.options.disk;
        let last = inputs.last().expect("a merge has inputs");
        let columns = last.columns.clone().expect("only tables of today are chosen");
        // The next name after the last input's: it takes the inputs' place in the order of commits.
        let ulid = Ulid::from_string(&last.meta.ulid).ok().and_then(|ulid| ulid.increment());
        let ulid = ulid.ok_or_else(|| last.damaged("its name is not one of ours"))?.to_string();
        let named: Vec<&str> = inputs.iter().map(|input| input.meta.ulid.as_str()).collect();
        if self.manifest().names(&ulid)? {
            // An earlier swap was committed though it was reported as failed.
            return Err(StoreError::NotNamed { segment: named[0].to_owned() });
        }
        let parent = self.segments_dir.join(&last.meta.table);
        let Some(content) = merge(disk, &parent, &ulid, inputs, &columns, stop)? else { return Ok(None) };
        let folder = parent.join(&ulid);
        let swapped = || -> Result<Arc<Segment>, StoreError> {
            let segment = Arc::new(Segment::open(&folder, &content, Some(columns))?);
            disk.point("before-compaction-swap").map_err(StoreError::io("commit to", &self.dir))?;
            let added = [Named { ulid: ulid.clone(), table: segment.meta.table.clone(), content: content.clone() }];
            let result = self.manifest().swap(&named, &added);
            crash_point("after-compaction-swap");
            match result {
                // An error of the commit itself may come although it is durable: the manifest knows.
                Err(error) if !self.manifest().names(&ulid)? => Err(error),
                _ => Ok(segment),
            }
        };
        swapped().map(Some).inspect_err(|_| {
            if self.manifest().names(&ulid).is_ok_and(|named| !named) {
                remove_leftover(disk, &folder);
            }
        })
    }

    /// In what readers see from now on.
    fn replace(&self, gone: &[Arc<Segment>], merged: Option<Arc<Segment>>) {
        let names: HashSet<&str> = gone.iter().map(|segment| segment.meta.ulid.as_str()).collect();
        let mut state = self.write();
        let left = state.segments.iter().filter(|segment| !names.contains(segment.meta.ulid.as_str())).cloned();
        let mut segments: Vec<Arc<Segment>> = left.chain(merged).collect();
        segments.sort_by(|a, b| a.meta.ulid.cmp(&b.meta.ulid));
        state.segments = Arc::new(segments);
        drop(state);
        self.fingerprints.forget(&names);
    }
}
