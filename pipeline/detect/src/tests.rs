//! Tests through the door of this crate.

mod equivalence;
mod lookups;
mod memory;
mod naive;
mod refusals;
mod single;
mod stories;
mod streams;
mod tuning;
mod windows;
