//! Where events come from: Kafka, the embedded log (the default without Kafka), files, and senders over HTTP, whose
//! bodies go into one of the first two. Each of the three is a [`Feed`] that hands over raw messages with their
//! coordinates and the offset ranges they cover. A feed never tells upstream that something is done before it is told
//! so by [`Feed::committed`], and it never drops or changes a byte. What the bytes mean is left to normalize.

mod cursor;
mod error;
pub mod fault;
mod feed;
mod files;
mod frame;
pub mod http;
mod import;
mod kafka;
mod log;

pub use error::SourceError;
pub use feed::{CLUSTER_HEADER, Feed, POLL_BYTES_MAX, POLL_MESSAGES_MAX, TopicMapping};
pub use files::{Disk, FileHandle, FileLayer};
pub use frame::RECORD_BYTES_MAX;
pub use import::{FileRead, FileStamp, Import, Progress, Remark, Survey};
pub use kafka::{Acknowledge, KafkaConfig, KafkaFeed, Producer};
pub use log::{Log, LogFeed, Topic};
