//! The only door: each row is let through once, and stamped with its source's watermark as it was before the row.
//!
//! A duplicate has the table and the row hash of a row that is held. Rows of the same unit are compared here; all
//! earlier ones are [`Seen`]'s to know, which therefore must cover every unit that was admitted before (the pipeline
//! appends a unit to the store before it admits the next). So nothing about duplicates is remembered here.
//! If `Seen` cannot answer, nothing has changed and the unit can be admitted again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::compute::FilterBuilder;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use event::{
    Admitted, Batch, ColumnType, Counts, Micros, Origin, Polled, RowHash, RowKey, Seen, SeenError, Source, Watermarks,
    column, tables,
};

use crate::clock::SourceClock;
use crate::hash::hex;
use crate::normalizer::Normalized;

/// Uids remembered to notice that one comes again with other bytes. Bounds memory to some 10 MB; a conflict further
/// apart is kept like any row but not counted.
pub const UIDS_REMEMBERED: usize = 100_000;

const SECOND: Micros = 1_000_000;

#[derive(Clone, Debug)]
pub struct AdmitConfig {
    /// How long after its time an event may arrive and still be on time. A source that is absent has its default.
    pub lateness: BTreeMap<Source, Micros>,
    /// How far a sender's clock may be ahead of ours and still move the watermark.
    pub future_skew: Micros,
}

impl Default for AdmitConfig {
    fn default() -> Self {
        let lateness = Source::ALL.map(|source| (source, default_lateness(source))).into();
        AdmitConfig { lateness, future_skew: 60 * SECOND }
    }
}

/// CloudTrail delivers files after minutes; the others deliver as they go.
fn default_lateness(source: Source) -> Micros {
    match source {
        Source::Kubernetes => 30 * SECOND,
        Source::Falco => 15 * SECOND,
        Source::CloudTrail => 20 * 60 * SECOND,
    }
}

/// Decides about rows, one poll after the other.
#[derive(Debug)]
pub struct Admit {
    clocks: BTreeMap<Source, SourceClock>,
    uids: Uids,
}

impl Admit {
    /// `restored` are the watermarks of the last commit.
    pub fn new(config: AdmitConfig, restored: Watermarks) -> Self {
        let clocks = Source::ALL.map(|source| {
            let lateness = config.lateness.get(&source).copied().unwrap_or_else(|| default_lateness(source));
            (source, SourceClock::new(lateness, config.future_skew, restored.get(source)))
        });
        Admit { clocks: clocks.into(), uids: Uids::default() }
    }

    pub fn watermarks(&self) -> Watermarks {
        let known = self.clocks.iter().filter(|(_, clock)| clock.watermark() > Micros::MIN);
        Watermarks(known.map(|(source, clock)| (*source, clock.watermark())).collect())
    }

    /// Admits what was normalized from the messages of `polled`. `now` is the wall clock, which moves the watermark of
    /// sources whose partitions are all idle.
    pub fn admit(
        &mut self,
        polled: &Polled,
        rows: Normalized,
        now: Micros,
        seen: &dyn Seen,
    ) -> Result<Admitted, SeenError> {
        let tables: Vec<TableRows> = rows.batches.iter().map(TableRows::new).collect();
        let fresh: Vec<Vec<bool>> = tables.iter().map(|t| t.fresh(seen)).collect::<Result<_, _>>()?;

        for (source, clock) in &mut self.clocks {
            clock.hold(polled.partitions.iter().filter(|p| p.source == *source));
        }
        let (stamps, mut counts) = self.stamp(&tables, &fresh, &rows.order);
        for (source, clock) in &mut self.clocks {
            let states: Vec<_> = polled.partitions.iter().filter(|p| p.source == *source).collect();
            clock.release(&states, now);
        }
        counts.bytes = polled.messages.iter().map(|m| m.bytes.len() as u64).sum();
        let batches = rows.batches.iter().zip(fresh).zip(stamps);
        let batches = batches.filter_map(|((batch, fresh), stamps)| stamped(batch, fresh, stamps)).collect();
        Ok(Admitted { batches, ranges: polled.ranges.clone(), watermarks: self.watermarks(), counts })
    }

    /// The stamps of the fresh rows, per table, found in arrival order.
    fn stamp(&mut self, tables: &[TableRows], fresh: &[Vec<bool>], order: &[u8]) -> (Vec<Vec<Micros>>, Counts) {
        let mut counts = Counts::default();
        let mut stamps: Vec<Vec<Micros>> = fresh.iter().map(|f| Vec::with_capacity(f.len())).collect();
        let mut next = vec![0; tables.len()];
        for table in order.iter().map(|table| usize::from(*table)) {
            let row = next[table];
            next[table] += 1;
            match fresh[table][row] {
                true => stamps[table].push(self.stamp_row(&tables[table], row, &mut counts)),
                false => counts.duplicates += 1,
            }
        }
        debug_assert!(next.iter().zip(fresh).all(|(n, f)| *n == f.len()), "the order names every row");
        (stamps, counts)
    }

    fn stamp_row(&mut self, table: &TableRows, row: usize, counts: &mut Counts) -> Micros {
        counts.admitted += 1;
        counts.unparsed += u64::from(table.unparsed);
        counts.conflicts += u64::from(!table.unparsed && self.uids.conflicts(table, row));
        if table.is_import(row) {
            return Micros::MIN;
        }
        let clock = self.clocks.get_mut(&table.source(row)).expect("there is a clock for every source");
        let watermark = clock.watermark();
        if !table.unparsed {
            let time = table.time.value(row);
            counts.late += u64::from(time < watermark);
            let partition = table.partition.value(row) as i32;
            clock.count(table.topic.value(row), partition, time, table.ingest_time.value(row));
        }
        watermark
    }
}

/// What admission looks at in a batch.
struct TableRows<'b> {
    name: &'b str,
    unparsed: bool,
    time: &'b TimestampMicrosecondArray,
    ingest_time: &'b TimestampMicrosecondArray,
    uid: &'b StringViewArray,
    source: &'b StringViewArray,
    origin: &'b StringViewArray,
    topic: &'b StringViewArray,
    partition: &'b arrow::array::Int64Array,
    hashes: Vec<RowHash>,
}

impl<'b> TableRows<'b> {
    fn new(batch: &'b Batch) -> Self {
        let column = |name| batch.rows.column_by_name(name).expect("every stored table has the meta columns");
        let hashes = column(column::ROW_HASH).as_fixed_size_binary();
        TableRows {
            name: &batch.table,
            unparsed: &*batch.table == tables::UNPARSED,
            time: column(column::TIME).as_primitive::<TimestampMicrosecondType>(),
            ingest_time: column(column::INGEST_TIME).as_primitive::<TimestampMicrosecondType>(),
            uid: column(column::EVENT_UID).as_string_view(),
            source: column(column::SOURCE).as_string_view(),
            origin: column(column::ORIGIN).as_string_view(),
            topic: column(column::TOPIC).as_string_view(),
            partition: column(column::PARTITION).as_primitive::<Int64Type>(),
            hashes: (0..hashes.len())
                .map(|row| hashes.value(row).try_into().expect("a row hash is as wide as its column"))
                .collect(),
        }
    }

    /// Per row: neither a repetition within the unit nor held already.
    fn fresh(&self, seen: &dyn Seen) -> Result<Vec<bool>, SeenError> {
        let mut hashes = HashSet::with_capacity(self.hashes.len());
        let mut fresh: Vec<bool> = self.hashes.iter().map(|hash| hashes.insert(*hash)).collect();
        let first: Vec<usize> = (0..fresh.len()).filter(|row| fresh[*row]).collect();
        let keys: Vec<RowKey> =
            first.iter().map(|row| RowKey { time: self.time.value(*row), hash: self.hashes[*row] }).collect();
        let held = seen.seen(self.name, &keys)?;
        if held.len() != keys.len() {
            return Err(SeenError(format!("asked about {} rows of {}, told of {}", keys.len(), self.name, held.len())));
        }
        for (row, held) in first.into_iter().zip(held) {
            fresh[row] = !held;
        }
        Ok(fresh)
    }

    fn is_import(&self, row: usize) -> bool {
        self.origin.value(row) == Origin::Import.name()
    }

    fn source(&self, row: usize) -> Source {
        self.source.value(row).parse().expect("normalize writes names of sources")
    }
}

/// The fresh rows of a batch with their stamps; `None` when there are none.
fn stamped(batch: &Batch, fresh: Vec<bool>, stamps: Vec<Micros>) -> Option<Batch> {
    if stamps.is_empty() {
        return None;
    }
    let rows = match stamps.len() == fresh.len() {
        true => batch.rows.clone(),
        false => fresh_rows(&batch.rows, fresh),
    };
    let stamps = TimestampMicrosecondArray::from(stamps).with_data_type(ColumnType::Timestamp.arrow());
    let index = rows.schema().index_of(column::SOURCE_WATERMARK).expect("every stored table has the meta columns");
    let mut columns = rows.columns().to_vec();
    columns[index] = Arc::new(stamps);
    let rows = RecordBatch::try_new(rows.schema(), columns).expect("the stamps are as many as the rows");
    Some(Batch { table: batch.table.clone(), rows })
}

/// Columns without a value are one array; it stays one.
fn fresh_rows(rows: &RecordBatch, fresh: Vec<bool>) -> RecordBatch {
    let fresh = FilterBuilder::new(&BooleanArray::from(fresh)).optimize().build();
    let mut shared: Vec<(&ArrayRef, ArrayRef)> = Vec::new();
    let columns = rows.columns().iter().map(|column| {
        if let Some((_, filtered)) = shared.iter().find(|(known, _)| Arc::ptr_eq(known, column)) {
            return filtered.clone();
        }
        let filtered = fresh.filter(column).expect("the filter is as long as the batch");
        if column.null_count() == column.len() {
            shared.push((column, filtered.clone()));
        }
        filtered
    });
    let columns = columns.collect();
    RecordBatch::try_new(rows.schema(), columns).expect("they were filtered by one filter")
}

/// The last uids and what their bytes were. Keyed by a seeded hash of table and uid: two that collide cost at most a
/// wrong count.
#[derive(Debug, Default)]
struct Uids {
    seed: RandomState,
    hashes: HashMap<u64, RowHash>,
    oldest_first: VecDeque<u64>,
    own: String,
}

impl Uids {
    /// Remembers the row's uid; true when it was known with other bytes.
    fn conflicts(&mut self, table: &TableRows, row: usize) -> bool {
        let (uid, hash) = (table.uid.value(row), table.hashes[row]);
        if uid == hex(&hash, &mut self.own) {
            return false;
        }
        let key = self.seed.hash_one((table.name, uid));
        match self.hashes.insert(key, hash) {
            Some(known) => known != hash,
            None => {
                self.oldest_first.push_back(key);
                if self.oldest_first.len() > UIDS_REMEMBERED {
                    self.oldest_first.pop_front().map(|oldest| self.hashes.remove(&oldest));
                }
                false
            }
        }
    }
}
