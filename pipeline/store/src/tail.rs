//! Rows that were admitted but are not in a segment yet, with the offsets and watermarks that come with them.
//! Searchable at once; lost in a crash, which is why offsets are committed with the segment only.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use event::{Admitted, Offsets, Ranges, RowHash, Watermarks};

use crate::StoreError;
use crate::segment::{hashes, raw_bytes};

#[derive(Clone, Default)]
pub struct Tail {
    tables: BTreeMap<Arc<str>, TailTable>,
    pub ranges: Ranges,
    pub watermarks: Watermarks,
    /// Bytes of `raw`.
    pub bytes: u64,
    pub rows: u64,
    /// When the first thing that waits for a commit arrived.
    pub since: Option<Instant>,
}

#[derive(Clone, Default)]
struct TailTable {
    batches: Vec<RecordBatch>,
    hashes: HashSet<RowHash>,
}

impl Tail {
    /// Takes over one admitted unit. On error nothing is changed.
    pub fn append(&mut self, admitted: &Admitted, committed: &Watermarks, now: Instant) -> Result<(), StoreError> {
        let mut ranges = self.ranges.clone();
        ranges.extend(&admitted.ranges)?;
        self.ranges = ranges;
        for batch in admitted.batches.iter().filter(|batch| batch.rows.num_rows() > 0) {
            let table = self.tables.entry(batch.table.clone()).or_default();
            table.hashes.extend(hashes(&batch.rows));
            table.batches.push(batch.rows.clone());
            self.bytes += raw_bytes(&batch.rows);
            self.rows += batch.rows.num_rows() as u64;
        }
        let news = admitted.rows() > 0
            || admitted.ranges.0.values().any(|range| range.from < range.next)
            || admitted.watermarks.0.iter().any(|(source, mark)| *mark > committed.get(*source));
        self.watermarks.merge(&admitted.watermarks);
        if news {
            self.since.get_or_insert(now);
        }
        Ok(())
    }

    /// Nothing here needs a commit.
    pub fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Puts a tail that could not be sealed back in front of what has arrived since.
    pub fn put_back(&mut self, earlier: &Tail) {
        let mut whole = earlier.clone();
        for (name, later) in std::mem::take(&mut self.tables) {
            let table = whole.tables.entry(name).or_default();
            table.batches.extend(later.batches);
            table.hashes.extend(later.hashes);
        }
        whole.ranges.extend(&self.ranges).expect("append checks that ranges continue those of the frozen tail");
        whole.watermarks.merge(&self.watermarks);
        whole.bytes += self.bytes;
        whole.rows += self.rows;
        *self = whole;
    }

    /// The offsets as they will be once this tail is committed.
    pub fn advance(&self, offsets: &mut Offsets) -> Result<(), StoreError> {
        Ok(offsets.advance(&self.ranges)?)
    }

    pub fn batches(&self, table: &str) -> &[RecordBatch] {
        self.tables.get(table).map_or(&[], |table| &table.batches)
    }

    pub fn holds(&self, table: &str, hash: &RowHash) -> bool {
        self.tables.get(table).is_some_and(|table| table.hashes.contains(hash))
    }

    pub fn tables(&self) -> impl Iterator<Item = (&Arc<str>, &[RecordBatch])> {
        self.tables.iter().map(|(name, table)| (name, table.batches.as_slice()))
    }
}
