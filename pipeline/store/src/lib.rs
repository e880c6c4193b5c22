//! The store: rows become durable here, and are found again.
//!
//! [`Store::append`] makes admitted rows searchable, [`Store::seal`] makes them durable: immutable segments (Parquet and
//! a tantivy index over the same rows in the same order) and one manifest transaction that names them together with the
//! offsets and watermarks they cover. [`Store::table`] gives the rows to SQL, [`Store::search`] to the search language of
//! [`search`], and [`event::Seen`] tells admission which rows are held already. [`Store::compact`], [`Store::remove`] and
//! [`Store::sweep`] keep it in shape while it runs; [`verify`], [`backup`] and [`restore`] look after it from outside.
//!
//! Promises: a row is in no commit or in exactly one; readers see every admitted row exactly once, sealed or not; a
//! crash at any point loses only what was not committed, together with its offsets.

mod adapter;
mod backup;
mod compaction;
mod crash;
mod disk;
mod error;
mod files;
mod holds;
mod lease;
mod manifest;
mod provider;
mod retention;
mod scan;
pub mod search;
mod seen;
mod segment;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod upkeep;
mod verify;

pub use backup::{BACKUP, Backup, DERIVED, RETAINED, backup, restore};
pub use compaction::Compaction;
pub use crash::{CRASH_AT, CRASH_POINTS, crash_point};
pub use disk::{Disk, OsDisk};
pub use error::StoreError;
pub use holds::{Hold, Holds};
pub use retention::{Clock, Limits, Retention};
pub use store::{SEAL_AFTER, SEAL_BYTES, Stats, Store, StoreOptions};
pub use upkeep::{Compacted, Expired, Expiring};
pub use verify::{Problem, Verified, check_database, quarantine, verify};
