//! What is kept of every remembered row besides its values: what orders it, who may see it, what names it.

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use event::{Micros, RowHash, column};

use crate::evidence::find;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub time: Micros,
    pub uid: Box<str>,
    /// `source_watermark`.
    pub stamp: Micros,
    pub hash: RowHash,
}

impl Mark {
    /// Rows stamped below it are visible to this row; once all watermarks have reached it, what this row sees no
    /// longer changes.
    pub fn boundary(&self) -> Micros {
        self.time.max(self.stamp).saturating_add(1)
    }

    pub fn order(&self) -> (Micros, &str) {
        (self.time, &self.uid)
    }

    /// What a mark costs in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Mark>() + heap(self.uid.len())
    }
}

/// Bytes that an allocation of `len` bytes takes, with what the allocator adds.
pub fn heap(len: usize) -> usize {
    if len == 0 { 0 } else { (len + 8).next_multiple_of(16) }
}

/// The names under which marks are read beside the columns of a SELECT.
pub const TIME: &str = "__time";
pub const UID: &str = "__uid";
pub const STAMP: &str = "__stamp";
pub const HASH: &str = "__hash";

/// Marks of the rows of a batch whose columns have these names.
fn read(rows: &RecordBatch, names: [&str; 4], at: impl Iterator<Item = usize>) -> Result<Vec<Mark>> {
    let [time, uid, stamp, hash] = names;
    let time = find(rows, time)?.as_primitive::<TimestampMicrosecondType>();
    let uid = find(rows, uid)?.as_string_view();
    let stamp = find(rows, stamp)?.as_primitive::<TimestampMicrosecondType>();
    let hash = find(rows, hash)?.as_fixed_size_binary();
    let hash_at = |row: usize| -> Result<RowHash> {
        hash.value(row).try_into().map_err(|_| DataFusionError::Execution("a row hash has 16 bytes".to_owned()))
    };
    at.map(|row| {
        Ok(Mark { time: time.value(row), uid: uid.value(row).into(), stamp: stamp.value(row), hash: hash_at(row)? })
    })
    .collect()
}

/// Of some rows of a batch of a stored table.
pub fn of_rows(rows: &RecordBatch, at: &[u32]) -> Result<Vec<Mark>> {
    let names = [column::TIME, column::EVENT_UID, column::SOURCE_WATERMARK, column::ROW_HASH];
    read(rows, names, at.iter().map(|row| *row as usize))
}

/// Of all rows of a query that selects the marks under their own names.
pub fn of_query(rows: &RecordBatch) -> Result<Vec<Mark>> {
    read(rows, [TIME, UID, STAMP, HASH], 0..rows.num_rows())
}
