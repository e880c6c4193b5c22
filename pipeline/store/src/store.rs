//! The store: open and recover, append, seal, and consistent snapshots for readers.
//!
//! A commit is: segment files written and synced, folders renamed and synced, then one manifest transaction. What the
//! manifest does not name is removed at the next start, so a crash at any point leaves the rows either committed
//! with their offsets or not stored at all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use event::{Admitted, ColumnType, Commit, Offsets, Recompute, RowKey, TableSchema, Watermarks, column};
use ulid::{Generator, Ulid};

use crate::disk::{Disk, OsDisk};
use crate::lease::{Lease, Readers};
use crate::manifest::{Contents, Manifest, Named};
use crate::provider::{Provider, Which};
use crate::seen::Fingerprints;
use crate::segment::{Built, Columns, Rows, Segment, TEMPORARY, build_all, publish};
use crate::tail::Tail;
use crate::upkeep::Upkeep;
use crate::{StoreError, search};

/// Bytes of `raw` at which a tail is sealed: a segment of this size is indexed in seconds, and few enough of them
/// make a day.
pub const SEAL_BYTES: u64 = 64 << 20;

/// A tail is sealed after this time however small it is: it bounds what a restart reads again, and how far the
/// committed watermarks (and with them windowed rules) stay behind.
pub const SEAL_AFTER: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub struct StoreOptions {
    pub seal_bytes: u64,
    pub seal_after: Duration,
    /// The file operations of publishing; tests take the power away here.
    pub disk: Arc<dyn Disk>,
    /// Computes columns that older segments lack; `None`: reading such a column is an error.
    pub recompute: Option<Arc<dyn Recompute>>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions { seal_bytes: SEAL_BYTES, seal_after: SEAL_AFTER, disk: Arc::new(OsDisk), recompute: None }
    }
}

/// What is held, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Committed.
    pub rows: u64,
    pub segments: u64,
    /// Files of the segments.
    pub disk_bytes: u64,
    /// Bytes of `raw` of the committed rows.
    pub raw_bytes: u64,
    /// Admitted, not yet committed.
    pub tail_rows: u64,
    pub tail_bytes: u64,
}

/// A data directory. Shared between threads by `Arc`; table providers stay valid when it is dropped, but only the
/// store itself holds the lease.
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    /// `None`: opened for reading only.
    lease: Option<Lease>,
    /// While this reads beside the owner, the owner removes no folder.
    _readers: Option<Readers>,
}

type SharedSegments = Arc<Vec<Arc<Segment>>>;

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) segments_dir: PathBuf,
    pub(crate) tables: Vec<Arc<TableSchema>>,
    /// The same by name, with what computes what old segments lack.
    pub(crate) columns: BTreeMap<String, Arc<Columns>>,
    pub(crate) options: StoreOptions,
    read_only: bool,
    manifest: Mutex<Manifest>,
    state: RwLock<State>,
    /// Held while sealing; remembers the last name given to a segment.
    sealing: Mutex<Names>,
    pub(crate) fingerprints: Fingerprints,
    /// Held while merging or removing.
    pub(crate) upkeep: Mutex<Upkeep>,
}

pub(crate) struct State {
    /// Of the manifest, when last read beside its owner.
    version: i64,
    sequence: u64,
    offsets: Offsets,
    watermarks: Watermarks,
    pub segments: SharedSegments,
    /// Being sealed.
    frozen: Option<Arc<Tail>>,
    tail: Tail,
}

/// One consistent view: every admitted row is in exactly one of the parts.
pub struct Snapshot {
    pub segments: SharedSegments,
    pub frozen: Option<Arc<Tail>>,
    pub tail: Tail,
}

impl Snapshot {
    pub fn segments_of(&self, table: &str) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().filter(move |segment| segment.meta.table == table)
    }

    /// Rows of a table that are not in a segment, in admission order.
    pub fn unsealed(&self, table: &str) -> Vec<RecordBatch> {
        let frozen = self.frozen.as_ref().map_or(&[][..], |frozen| frozen.batches(table));
        frozen.iter().chain(self.tail.batches(table)).cloned().collect()
    }
}

impl Store {
    /// Opens or creates a data directory for writing: takes the lease ([`StoreError::Leased`] if another process has
    /// it), removes what no commit names, checks that every named segment is there. `tables` are the stored tables.
    pub fn open(dir: &Path, tables: Vec<Arc<TableSchema>>, options: StoreOptions) -> Result<Store, StoreError> {
        std::fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        let dir = dir.canonicalize().map_err(StoreError::io("open", dir))?;
        let lease = Lease::take(&dir)?;
        let segments_dir = dir.join("segments");
        for table in &tables {
            let folder = segments_dir.join(&table.name);
            options.disk.create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        }
        let mut manifest = Manifest::open(&dir)?;
        for folder in [&segments_dir, &dir] {
            options.disk.sync_dir(folder).map_err(StoreError::io("sync", folder))?;
        }
        let contents = manifest.contents()?;
        let mut upkeep = Upkeep::of_orphans(orphans(&*options.disk, &segments_dir, &contents)?);
        upkeep.sweep(&*options.disk, &dir)?;
        let version = manifest.version()?;
        let inner = Inner::new(dir, tables, options, false, manifest, (version, contents), upkeep)?;
        Ok(Store { inner: Arc::new(inner), lease: Some(lease), _readers: None })
    }

    /// Opens an existing data directory beside its owner: sees what has been committed, at each query anew. While it is
    /// open no segment's folder is removed.
    pub fn open_read_only(dir: &Path, tables: Vec<Arc<TableSchema>>) -> Result<Store, StoreError> {
        Store::open_beside(dir, tables, None)
    }

    /// The same, with what computes columns that older segments lack.
    pub fn open_beside(
        dir: &Path,
        tables: Vec<Arc<TableSchema>>,
        recompute: Option<Arc<dyn Recompute>>,
    ) -> Result<Store, StoreError> {
        let dir = dir.canonicalize().map_err(StoreError::io("open", dir))?;
        let readers = Readers::join(&dir)?;
        let mut manifest = Manifest::open_read_only(&dir)?;
        let version = manifest.version()?;
        let contents = manifest.contents()?;
        let options = StoreOptions { recompute, ..StoreOptions::default() };
        let inner = Inner::new(dir, tables, options, true, manifest, (version, contents), Upkeep::default())?;
        Ok(Store { inner: Arc::new(inner), lease: None, _readers: Some(readers) })
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub fn is_read_only(&self) -> bool {
        self.lease.is_none()
    }

    /// Makes admitted rows searchable; they are durable once a [`Commit`] says so. Its ranges must continue those
    /// appended before.
    pub fn append(&self, admitted: &Admitted) -> Result<(), StoreError> {
        if self.is_read_only() {
            return Err(StoreError::ReadOnly);
        }
        for batch in &admitted.batches {
            self.inner.check_columns(&batch.table, &batch.rows)?;
        }
        let mut state = self.inner.write();
        state.positions()?.advance(&admitted.ranges)?;
        let State { tail, watermarks, .. } = &mut *state;
        tail.append(admitted, watermarks, Instant::now())
    }

    /// Is it time to [`seal`](Store::seal)? Also when only offsets or watermarks have moved.
    pub fn seal_due(&self, now: Instant) -> bool {
        let (state, options) = (self.inner.read(), &self.inner.options);
        let old = |since: Instant| now.saturating_duration_since(since) >= options.seal_after;
        state.tail.bytes >= options.seal_bytes || state.tail.since.is_some_and(old)
    }

    /// Makes durable what has been appended. `None`: there was nothing new. Appending goes on meanwhile. On error
    /// nothing is committed, the rows stay searchable, and sealing again is safe.
    pub fn seal(&self) -> Result<Option<Commit>, StoreError> {
        if self.is_read_only() {
            return Err(StoreError::ReadOnly);
        }
        let mut names = self.inner.sealing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let frozen = {
            let mut state = self.inner.write();
            if state.tail.is_empty() {
                return Ok(None);
            }
            let frozen = Arc::new(std::mem::take(&mut state.tail));
            state.frozen = Some(frozen.clone());
            frozen
        };
        let sealed = self.inner.seal(&frozen, &mut names);
        let mut state = self.inner.write();
        state.frozen = None;
        match sealed {
            Ok((commit, added)) => {
                state.sequence = commit.sequence;
                state.offsets = commit.offsets.clone();
                state.watermarks = commit.watermarks.clone();
                state.segments = Arc::new(state.segments.iter().cloned().chain(added).collect());
                Ok(Some(commit))
            }
            Err(error) => {
                state.tail.put_back(&frozen);
                Err(error)
            }
        }
    }

    /// Committed positions: where a consumer starts after a restart.
    pub fn offsets(&self) -> Result<Offsets, StoreError> {
        Ok(self.inner.fresh()?.offsets.clone())
    }

    /// Positions including what is appended but not committed: where a consumer continues within this process.
    pub fn positions(&self) -> Result<Offsets, StoreError> {
        self.inner.fresh()?.positions()
    }

    /// Committed watermarks.
    pub fn watermarks(&self) -> Result<Watermarks, StoreError> {
        Ok(self.inner.fresh()?.watermarks.clone())
    }

    /// Number of the last commit; 0 before the first.
    pub fn sequence(&self) -> Result<u64, StoreError> {
        Ok(self.inner.fresh()?.sequence)
    }

    pub fn stats(&self) -> Result<Stats, StoreError> {
        let state = self.inner.fresh()?;
        let mut stats = Stats { segments: state.segments.len() as u64, ..Stats::default() };
        for segment in state.segments.iter() {
            stats.rows += segment.meta.rows;
            stats.disk_bytes += segment.meta.disk_bytes();
            stats.raw_bytes += segment.meta.raw_bytes;
        }
        for tail in state.frozen.as_deref().into_iter().chain([&state.tail]) {
            stats.tail_rows += tail.rows;
            stats.tail_bytes += tail.bytes;
        }
        Ok(stats)
    }

    /// Bytes of `raw` admitted and not yet committed. Asked for every unit: it must not depend on what is stored.
    pub fn tail_bytes(&self) -> Result<u64, StoreError> {
        let state = self.inner.fresh()?;
        Ok(state.frozen.as_ref().map_or(0, |frozen| frozen.bytes) + state.tail.bytes)
    }

    /// Reads every committed file and compares its hash with what was written.
    pub fn verify(&self) -> Result<(), StoreError> {
        let segments = self.inner.fresh()?.segments.clone();
        segments.iter().try_for_each(|segment| segment.verify())
    }

    /// The stored tables this store was opened with.
    pub fn tables(&self) -> &[Arc<TableSchema>] {
        &self.inner.tables
    }

    /// All rows: committed and not. Each scan takes its own snapshot.
    pub fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>, StoreError> {
        Ok(Arc::new(Provider::new(self.inner.clone(), self.inner.table(name)?.clone(), Which::All)))
    }

    /// Committed rows only.
    pub fn committed(&self, name: &str) -> Result<Arc<dyn TableProvider>, StoreError> {
        Ok(Arc::new(Provider::new(self.inner.clone(), self.inner.table(name)?.clone(), Which::Committed)))
    }

    /// Rows that match, newest first; see [`search::Hits`].
    pub fn search(&self, query: &search::Query, options: &search::SearchOptions) -> Result<search::Hits, StoreError> {
        search::Hits::new(&self.inner.tables, &self.inner.snapshot()?, query, options)
    }

    /// How many rows match, and what was looked at.
    pub fn count(&self, query: &search::Query, range: search::TimeRange) -> Result<search::Count, StoreError> {
        search::count(&self.inner.tables, &self.inner.snapshot()?, query, range)
    }
}

impl Inner {
    fn new(
        dir: PathBuf,
        tables: Vec<Arc<TableSchema>>,
        options: StoreOptions,
        read_only: bool,
        manifest: Manifest,
        (version, contents): (i64, Contents),
        upkeep: Upkeep,
    ) -> Result<Inner, StoreError> {
        tables.iter().try_for_each(|table| check_meta_columns(table))?;
        let last = contents.segments.last().and_then(|segment| Ulid::from_string(&segment.ulid).ok());
        let columns = tables.iter().map(|table| {
            let columns = Columns { table: table.clone(), recompute: options.recompute.clone() };
            (table.name.clone(), Arc::new(columns))
        });
        let columns = columns.collect();
        let segments_dir = dir.join("segments");
        let mut state = State {
            version,
            sequence: 0,
            offsets: Offsets::default(),
            watermarks: Watermarks::default(),
            segments: Arc::default(),
            frozen: None,
            tail: Tail::default(),
        };
        state.take_over(contents, &segments_dir, &columns)?;
        Ok(Inner {
            dir,
            segments_dir,
            tables,
            columns,
            options,
            read_only,
            manifest: Mutex::new(manifest),
            state: RwLock::new(state),
            sealing: Mutex::new(Names { generator: Generator::new(), last }),
            fingerprints: Fingerprints::default(),
            upkeep: Mutex::new(upkeep),
        })
    }

    pub(crate) fn table(&self, name: &str) -> Result<&Arc<TableSchema>, StoreError> {
        self.tables.iter().find(|table| table.name == name).ok_or_else(|| StoreError::UnknownTable(name.to_owned()))
    }

    fn check_columns(&self, table: &str, rows: &RecordBatch) -> Result<(), StoreError> {
        let schema = self.table(table)?;
        if rows.schema().fields() == schema.arrow().fields() {
            return Ok(());
        }
        let (wanted, found) = (schema.arrow(), rows.schema());
        let what = wanted.fields().iter().zip(found.fields()).find(|(wanted, found)| wanted != found).map_or_else(
            || format!("{} columns, not {}", found.fields().len(), wanted.fields().len()),
            |(wanted, found)| {
                format!(
                    "`{}` {} instead of `{}` {}",
                    found.name(),
                    found.data_type(),
                    wanted.name(),
                    wanted.data_type()
                )
            },
        );
        Err(StoreError::Schema { table: table.to_owned(), what })
    }

    /// A view of everything admitted (of everything committed, when reading beside the owner).
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let state = self.fresh()?;
        let (segments, frozen) = (state.segments.clone(), state.frozen.clone());
        Ok(Snapshot { segments, frozen, tail: state.tail.clone() })
    }

    /// Which keys the unsealed rows hold, and the segments to ask about the others, as of one moment.
    pub(crate) fn unsealed_seen(
        &self,
        table: &str,
        keys: &[RowKey],
    ) -> Result<(SharedSegments, Vec<bool>), StoreError> {
        let state = self.fresh()?;
        let held = |key: &RowKey| {
            state.tail.holds(table, &key.hash)
                || state.frozen.as_ref().is_some_and(|frozen| frozen.holds(table, &key.hash))
        };
        Ok((state.segments.clone(), keys.iter().map(held).collect()))
    }

    /// The state; a reader beside the owner first looks whether the owner has committed.
    fn fresh(&self) -> Result<RwLockReadGuard<'_, State>, StoreError> {
        if self.read_only {
            let mut manifest = self.manifest();
            // Before the contents: a commit in between is seen as news once more.
            let version = manifest.version()?;
            if version != self.read().version {
                let contents = manifest.contents()?;
                let mut state = self.write();
                state.take_over(contents, &self.segments_dir, &self.columns)?;
                state.version = version;
            }
        }
        Ok(self.read())
    }

    /// Writes the segments of a frozen tail and commits them.
    fn seal(&self, frozen: &Tail, names: &mut Names) -> Result<(Commit, Vec<Arc<Segment>>), StoreError> {
        let rows: Vec<Rows<'_>> = frozen
            .tables()
            .map(|(name, batches)| Ok(Rows { ulid: names.next(), table: self.table(name)?, batches }))
            .collect::<Result<_, StoreError>>()?;
        let built = build_all(&rows)?;
        let mut folders = Vec::new();
        let result = self.publish_and_commit(frozen, &built, &mut folders);
        if result.is_err() {
            self.discard(&folders);
        }
        result
    }

    fn publish_and_commit(
        &self,
        frozen: &Tail,
        built: &[Built],
        folders: &mut Vec<PathBuf>,
    ) -> Result<(Commit, Vec<Arc<Segment>>), StoreError> {
        let disk = &*self.options.disk;
        let mut added = Vec::new();
        for segment in built {
            let folder = publish(disk, &self.segments_dir.join(&segment.meta.table), segment)?;
            folders.push(folder.clone());
            let columns = self.columns.get(&segment.meta.table).cloned();
            added.push(Arc::new(Segment::open(&folder, &segment.content, columns)?));
        }
        let named: Vec<Named> = built
            .iter()
            .map(|b| Named { ulid: b.meta.ulid.clone(), table: b.meta.table.clone(), content: b.content.clone() })
            .collect();
        let point = |name| disk.point(name).map_err(StoreError::io("commit to", &self.dir));
        point("before-manifest-commit")?;
        let after = self.read().sequence;
        let (offsets, watermarks) = self.manifest().commit(after, &named, &frozen.ranges, &frozen.watermarks)?;
        // Durable from here on, whatever happens: an error now must not look as if nothing had been committed.
        crate::crash_point("after-manifest-commit");
        let segments = added.len() as u32;
        Ok((Commit { sequence: after + 1, offsets, watermarks, rows: frozen.rows, segments }, added))
    }

    /// Removes segments that were published but not committed, so that retrying on a full disk does not fill it
    /// further. If the manifest cannot say that they are not named, they stay until the next start.
    fn discard(&self, folders: &[PathBuf]) {
        let unchanged = self.manifest().sequence().is_ok_and(|found| found == self.read().sequence);
        for folder in folders.iter().filter(|_| unchanged) {
            if let Err(error) = self.options.disk.remove_dir_all(folder) {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove an uncommitted segment");
            }
        }
    }

    pub(crate) fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Opens the segments that are not open yet.
    fn take_over(
        &mut self,
        contents: Contents,
        segments_dir: &Path,
        columns: &BTreeMap<String, Arc<Columns>>,
    ) -> Result<(), StoreError> {
        let open: HashMap<&str, &Arc<Segment>> = self.segments.iter().map(|s| (s.meta.ulid.as_str(), s)).collect();
        let mut segments = Vec::with_capacity(contents.segments.len());
        for named in &contents.segments {
            segments.push(match open.get(named.ulid.as_str()) {
                Some(segment) => (*segment).clone(),
                None => {
                    let dir = segments_dir.join(&named.table).join(&named.ulid);
                    Arc::new(Segment::open(&dir, &named.content, columns.get(&named.table).cloned())?)
                }
            });
        }
        self.segments = Arc::new(segments);
        self.sequence = contents.sequence;
        self.offsets = contents.offsets;
        self.watermarks = contents.watermarks;
        Ok(())
    }

    fn positions(&self) -> Result<Offsets, StoreError> {
        let mut offsets = self.offsets.clone();
        for tail in self.frozen.as_deref().into_iter().chain([&self.tail]) {
            tail.advance(&mut offsets)?;
        }
        Ok(offsets)
    }
}

/// Names of segments: ULIDs that ascend even if the clock goes back.
struct Names {
    generator: Generator,
    last: Option<Ulid>,
}

impl Names {
    fn next(&mut self) -> String {
        let after_last = self.last.map(|last| last.datetime() + Duration::from_millis(1));
        let time = after_last.map_or_else(SystemTime::now, |time| time.max(SystemTime::now()));
        let ulid = self
            .generator
            .generate_from_datetime(time)
            .expect("a generator runs out after 2^80 names in one millisecond");
        self.last = Some(ulid);
        ulid.to_string()
    }
}

/// What no commit names: temporary folders, segments renamed before a crash, replaced ones not yet removed.
pub(crate) fn orphans(disk: &dyn Disk, segments_dir: &Path, contents: &Contents) -> Result<Vec<PathBuf>, StoreError> {
    let named: HashSet<PathBuf> =
        contents.segments.iter().map(|segment| segments_dir.join(&segment.table).join(&segment.ulid)).collect();
    let mut orphans = Vec::new();
    for table in disk.list(segments_dir).map_err(StoreError::io("list", segments_dir))? {
        let entries = match disk.list(&table) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => return Err(StoreError::io("list", &table)(error)),
        };
        orphans.extend(entries.into_iter().filter(|entry| !named.contains(entry) && is_ours(entry)));
    }
    if !orphans.is_empty() {
        tracing::info!(folders = orphans.len(), "removing segments that no commit names");
    }
    Ok(orphans)
}

/// Only what this store could have left there; a stray file of the operator's stays.
fn is_ours(entry: &Path) -> bool {
    let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ulid::from_string(name.strip_prefix(TEMPORARY).unwrap_or(name)).is_ok()
}

/// What the store itself reads of every row.
fn check_meta_columns(table: &TableSchema) -> Result<(), StoreError> {
    let kinds = [
        (column::TIME, ColumnType::Timestamp),
        (column::INGEST_TIME, ColumnType::Timestamp),
        (column::TOPIC, ColumnType::String),
        (column::PARTITION, ColumnType::Int64),
        (column::OFFSET, ColumnType::Int64),
        (column::ROW_HASH, ColumnType::Hash),
        (column::RAW, ColumnType::String),
    ];
    for (name, kind) in kinds {
        if table.column(name).is_none_or(|column| column.kind != kind || column.nullable) {
            let what = format!("`{name}` must be {} and never null", kind.name());
            return Err(StoreError::Schema { table: table.name.clone(), what });
        }
    }
    Ok(())
}
