//! Bytes in, columns out. `schemas/*.yaml` says which JSON path fills which column; `Normalizer` walks each message
//! once and appends a row per event to its source's table, or to `unparsed` with the reason. It is pure and cannot
//! fail: bad input is data. `Admit` then drops what is already held and stamps each row with its source's watermark.
//!
//! Promises: every element of every message becomes exactly one row; `raw` is the element's exact bytes but for secrets,
//! which no column has, and `row_hash` the hash of the bytes as they came; what a row says depends on its bytes only,
//! never on how messages were batched. `unparsed` keeps what it was given, secrets included: what cannot be read as an
//! event cannot be searched for them either.

mod address;
mod admit;
mod arena;
mod backfill;
mod clock;
mod cloudtrail;
mod column;
mod cursor;
mod declare;
mod envelope;
mod event_time;
mod hash;
mod inflate;
mod kubernetes;
mod memo;
mod mistake;
mod normalizer;
mod path;
mod pod;
mod pod_feature;
mod program;
mod redact;
mod rows;
mod scan;
mod schema;
mod transform;
mod trie;
mod uri;
mod value;
mod walk;
mod yaml;

#[cfg(test)]
mod tests;

pub use admit::{Admit, AdmitConfig, UIDS_REMEMBERED};
pub use backfill::Backfill;
pub use event_time::parse_rfc3339;
pub use mistake::{Mistake, SchemaError};
pub use normalizer::{Normalized, Normalizer};
pub use schema::Schemas;
