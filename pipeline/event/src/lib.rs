//! The nouns every room shares: messages as a source hands them over, tables and batches of rows,
//! offsets and watermarks, findings. Values only: no clock, no I/O, nothing heavier than arrow.

mod batch;
mod finding;
mod message;
mod offsets;
mod table;
mod time;

pub use batch::{Admitted, Batch, Commit, Counts, RowHash, RowKey, Seen, SeenError};
pub use finding::{Evidence, EvidenceEvent, Finding, FindingTime, Frontier, Severity, Standing};
pub use message::{Coordinates, Message, Origin, PartitionState, Polled, Source, UnknownSource};
pub use offsets::{Gap, OffsetRange, Offsets, Partition, Positions, Ranges};
pub use table::{AuditLevel, Column, ColumnType, Recompute, TableSchema, column, tables};
pub use time::{Micros, Watermarks, format_micros, push_micros};
