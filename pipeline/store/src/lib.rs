//! The store: rows become durable here, and are found again.
//!
//! [`Store::append`] makes admitted rows searchable, [`Store::seal`] makes them durable: immutable segments (Parquet and
//! a tantivy index over the same rows in the same order) and one manifest transaction that names them together with the
//! offsets and watermarks they cover. [`Store::table`] gives the rows to SQL, [`Store::search`] to the search language of
//! [`search`], and [`event::Seen`] tells admission which rows are held already.
//!
//! Promises: a row is in no commit or in exactly one; readers see every admitted row exactly once, sealed or not; a
//! crash at any point loses only what was not committed, together with its offsets.

mod crash;
mod disk;
mod error;
mod lease;
mod manifest;
mod provider;
pub mod search;
mod seen;
mod segment;
mod store;
mod tail;
#[cfg(test)]
mod tests;

pub use crash::{CRASH_AT, crash_point};
pub use disk::{Disk, OsDisk};
pub use error::StoreError;
pub use store::{SEAL_AFTER, SEAL_BYTES, Stats, Store, StoreOptions};
