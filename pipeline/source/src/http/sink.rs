//! Where accepted bodies become durable.

use std::fmt;
use std::io;

use super::Token;
use super::in_flight::Held;
use crate::SourceError;

/// Told once: the record is durable, or why it is not known to be.
pub type Done = Box<dyn FnOnce(Result<(), NotKept>) + Send>;

/// A body on its way, with its share of the bytes that may be in flight: the share comes back when the record is
/// gone, not when its sender stops waiting.
pub struct Record {
    pub payload: Vec<u8>,
    pub(super) held: Option<Held>,
}

/// One record goes in whole or not at all.
pub trait Sink: Send + Sync {
    /// Would a record of this token be taken now? Asked before its body is read.
    fn ready(&self, token: &Token) -> Result<(), NotKept>;

    /// Takes a record and returns at once. `Ok`: `done` will be told. `Err`: nothing was taken, `done` is dropped.
    fn send(&self, token: &Token, record: Record, done: Done) -> Result<(), NotKept>;
}

/// Why a record is not kept, or not known to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// The queue is full.
    Busy,
    /// What was received waits to be stored, and it is enough.
    Backlog {
        bytes: u64,
        bytes_max: u64,
    },
    /// Kafka does not take records of this size.
    TooLarge(String),
    DiskFull(String),
    Failed(String),
}

impl NotKept {
    pub(super) fn of_log(error: &SourceError) -> NotKept {
        match error {
            SourceError::Io { error, .. } if disk_full(error) => NotKept::DiskFull(first_line(error)),
            other => NotKept::Failed(first_line(other)),
        }
    }

    /// It heals by itself or somebody must act?
    pub(super) fn needs_someone(&self) -> bool {
        matches!(self, NotKept::DiskFull(_) | NotKept::Failed(_))
    }
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotKept::Busy => f.write_str("the queue of the log is full"),
            NotKept::Backlog { bytes, bytes_max } => {
                write!(f, "{bytes} bytes were received and are not stored yet, more than {bytes_max}")
            }
            NotKept::TooLarge(what) | NotKept::DiskFull(what) | NotKept::Failed(what) => f.write_str(what),
        }
    }
}

fn disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Hints of the source are for its operator.
pub(super) fn first_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
