//! What a source hands to normalize: bytes with their coordinates.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Micros, Ranges};

/// Whose format the bytes are in. Topics, import flags and receiver tokens map to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Kubernetes,
    CloudTrail,
    Falco,
}

impl Source {
    pub const ALL: [Source; 3] = [Source::Kubernetes, Source::CloudTrail, Source::Falco];

    /// The name in configs, columns and commands; also the name of the source's table.
    pub fn name(self) -> &'static str {
        match self {
            Source::Kubernetes => "kubernetes",
            Source::CloudTrail => "cloudtrail",
            Source::Falco => "falco",
        }
    }

    /// Kubernetes audit and Falco events do not say which cluster they come from; CloudTrail needs none.
    pub fn needs_cluster(self) -> bool {
        !matches!(self, Source::CloudTrail)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown source `{0}`\nhint: one of kubernetes, cloudtrail, falco")]
pub struct UnknownSource(pub String);

impl FromStr for Source {
    type Err = UnknownSource;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Source::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| UnknownSource(name.to_owned()))
    }
}

/// Which stream a row belongs to. An import is a bounded stream with a watermark of its own: its rows never
/// enter live windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Live,
    Import,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Origin::Live => "live",
            Origin::Import => "import",
        }
    }
}

/// Where an element was read: topic, partition, offset and its index within the message.
/// For an import the topic is `file:<path>`, the partition 0 and the offset the line number from 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Coordinates {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub index: i32,
}

/// One record of a topic or one line of a file, untouched. It may hold many elements (an `EventList`), which
/// are never split across commits.
#[derive(Clone, Debug)]
pub struct Message {
    pub source: Source,
    /// From the topic's mapping, a header of the record, or the receiver's token. Where [`Source::needs_cluster`] and
    /// it is absent (a record without the header that its mapping asks for), the elements are kept in `unparsed`.
    pub cluster: Option<Arc<str>>,
    pub origin: Origin,
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// Hex SHA-256 of the imported file; `None` for live messages.
    pub file_sha256: Option<Arc<str>>,
    /// Wall clock at receipt: becomes `ingest_time`.
    pub received: Micros,
    pub bytes: Vec<u8>,
}

/// What a source knows of one of its partitions after a poll. Decides whether the partition holds the
/// watermark back: one with lag is never idle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    pub source: Source,
    pub topic: Arc<str>,
    pub partition: i32,
    /// Records between our position and the end of the partition; `None` when not known (then not idle).
    pub lag: Option<i64>,
    /// Nothing arrived for the idle timeout and the lag is known to be zero.
    pub idle: bool,
}

/// One poll: messages in order, the offsets they cover (also of records that carried no message, such as
/// compacted ones), and the state of every assigned partition.
#[derive(Clone, Debug, Default)]
pub struct Polled {
    pub messages: Vec<Message>,
    pub ranges: Ranges,
    pub partitions: Vec<PartitionState>,
}
