//! Rows on their way: one Arrow batch per table, what admission made of them, and what a commit made durable.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::{Micros, Offsets, Ranges, Watermarks};

/// Rows of one stored table, in arrival order, with the table's full schema.
#[derive(Clone, Debug)]
pub struct Batch {
    pub table: Arc<str>,
    pub rows: RecordBatch,
}

/// First 16 bytes of the SHA-256 hash of an element's original bytes. Cryptographic on purpose: whoever could
/// make two different events collide could erase evidence.
pub type RowHash = [u8; 16];

/// What a duplicate has in common with the row it repeats, besides the table: equal bytes have equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowKey {
    pub time: Micros,
    pub hash: RowHash,
}

/// Rows that are already held, sealed or not. Implemented by the store, asked by admit.
pub trait Seen {
    /// For each key: is a row of `table` with this hash held? Only segments that cover the key's time need to
    /// be asked, except for `unparsed`, whose time is its ingest time.
    fn seen(&self, table: &str, keys: &[RowKey]) -> Result<Vec<bool>, SeenError>;
}

/// The store could not answer; nothing may be admitted past it.
#[derive(Debug, thiserror::Error)]
#[error("cannot look up stored rows: {0}")]
pub struct SeenError(pub String);

/// How many elements admission met, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Became rows, unparsed ones included.
    pub admitted: u64,
    /// Of those, rows of `unparsed`.
    pub unparsed: u64,
    /// Dropped: the same bytes are already held.
    pub duplicates: u64,
    /// Admitted although their `event_uid` was seen with other bytes shortly before.
    pub conflicts: u64,
    /// Admitted with a time below the source's watermark.
    pub late: u64,
    /// Bytes of the messages read.
    pub bytes: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.admitted += other.admitted;
        self.unparsed += other.unparsed;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.late += other.late;
        self.bytes += other.bytes;
    }
}

/// One poll after admission: what detect and store see, in the same order.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// At most one batch per table; empty when everything was a duplicate.
    pub batches: Vec<Batch>,
    /// The offsets dealt with, duplicates included. Empty for imports.
    pub ranges: Ranges,
    /// After this unit.
    pub watermarks: Watermarks,
    pub counts: Counts,
}

impl Admitted {
    pub fn rows(&self) -> usize {
        self.batches.iter().map(|b| b.rows.num_rows()).sum()
    }
}

/// What one manifest transaction made durable: safe to tell upstream.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Number of the transaction, counted from 1.
    pub sequence: u64,
    /// Positions after it.
    pub offsets: Offsets,
    pub watermarks: Watermarks,
    pub rows: u64,
    pub segments: u32,
}
