//! Tests through the door of this crate.

mod refusals;
mod single;
mod stories;
mod windows;
