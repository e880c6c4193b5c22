//! What can go wrong between the world and a message.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What was asked for cannot be done: a path, a property, a topic. Retrying does not help; changing it does.
    #[error("{0}")]
    Invalid(String),

    /// Bytes that were acknowledged as stored are no longer what was stored.
    #[error(
        "{} is damaged at byte {byte}: {what}\nhint: check the disk, then restore the file from a copy; without one, move \
         its folder away, which gives up what it holds, and start the topic anew under another name",
        file.display()
    )]
    Corrupt { file: PathBuf, byte: u64, what: String },

    /// Our position is beyond the end of what upstream has: the topic was made anew, or lost its end.
    #[error(
        "position {ours} of {topic}/{partition} is outside of what exists upstream ({low}..{high})\nhint: \
         was the topic deleted and created again? use another topic name or another data directory"
    )]
    Lost { topic: String, partition: i32, ours: i64, low: i64, high: i64 },

    /// Our position is before the first record that the embedded log still has. Only committed records are removed, so
    /// the manifest and the log are not of one time.
    #[error(
        "position {ours} of embedded topic `{topic}` is before its first record, {first}: what lies between was removed \
         after it had been stored\nhint: was the data directory restored from an older copy? restore `log/` from the \
         same copy, or move the topic's folder away and let it begin anew under another name"
    )]
    Trimmed { topic: String, ours: i64, first: i64 },

    /// The operating system refused.
    #[error("cannot {what}: {error}{}", io_hint(error))]
    Io { what: String, error: io::Error },

    /// There is no room at the moment: what was offered was not taken. Offering it again later helps.
    #[error(
        "kafka takes no more at the moment: its queue here is full\nhint: the brokers are slow or cannot be reached"
    )]
    Busy,

    /// One record is larger than the way it should go allows. Others may pass.
    #[error("a record of {bytes} bytes is too large for topic `{topic}`\nhint: raise `max.message.bytes` of the topic")]
    TooLarge { topic: String, bytes: usize },

    /// Kafka refused for good; what heals by itself (brokers down, elections) is logged and retried instead.
    #[error("kafka: {0}")]
    Kafka(String),
}

impl SourceError {
    /// For `map_err`: says what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> SourceError {
        let what = what.into();
        move |error| SourceError::Io { what, error }
    }
}

fn io_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\nhint: free some space; what was acknowledged before is safe, what was not must be sent again"
        }
        io::ErrorKind::PermissionDenied => "\nhint: it must be readable and writable by this user",
        io::ErrorKind::ReadOnlyFilesystem => {
            "\nhint: the disk is mounted read-only; after an error it may need a check"
        }
        _ => "",
    }
}
