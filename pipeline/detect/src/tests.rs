//! Tests through the door of this crate.

mod absence;
mod equivalence;
mod lookups;
mod memory;
mod naive;
mod refusals;
mod single;
mod stories;
pub(crate) mod streams;
mod tuning;
mod windows;
