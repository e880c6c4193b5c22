//! Tests through the door of this crate.

mod memory;
mod refusals;
mod single;
mod stories;
mod windows;
