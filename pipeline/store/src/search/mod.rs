//! Forensic search: one language, one tree, two evaluators that agree: brute force over rows ([`rows`]) and
//! index, columns and candidates over segments ([`sealed`]).
//!
//! A test passes if some leaf of the row's `raw` (of the named path, of the named column) passes it. Values are words
//! that must follow each other within one leaf; everything is case-insensitive; dots and underscores in names are
//! the same. A name that is a column of the table means that column with its type.

mod bits;
mod hits;
pub mod leaves;
mod parse;
pub mod query;
mod rows;
mod sealed;
pub mod words;

pub use hits::{Count, Coverage, Hits, SearchOptions, TimeRange, count};
pub use parse::ParseError;
pub use query::Query;
