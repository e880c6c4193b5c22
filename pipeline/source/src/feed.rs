//! The contract between a source and the pipeline thread that polls it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event::{Micros, Offsets, Polled, Source};

use crate::SourceError;

/// A poll stops taking messages once it holds this many bytes: big enough to fill Arrow batches, small enough that
/// a handful of polls in flight stays far below the memory of the smallest machine. One message may exceed it.
pub const POLL_BYTES_MAX: usize = 4 << 20;

/// Likewise in messages, for floods of tiny ones.
pub const POLL_MESSAGES_MAX: usize = 10_000;

/// A stream of messages.
///
/// * Messages of one partition come in offset order, each once within the life of the feed, whatever rebalances
///   happen meanwhile. After a restart the feed begins at the positions it is given.
/// * `Polled::ranges` continue each other per partition without gaps; offsets that hold no message (compaction,
///   transaction markers) lie inside a range.
/// * A message is handed over only once it cannot be taken back: a feed over files syncs what it read before.
/// * After an error the feed is of no further use: drop it and open another at the committed positions.
pub trait Feed: Send {
    /// Waits up to `wait` for something to arrive. Returns at most [`POLL_BYTES_MAX`] bytes (one message may exceed
    /// it) and [`POLL_MESSAGES_MAX`] messages. This or [`Feed::hold`] must be called all the time, or a Kafka group
    /// takes the partitions away.
    fn poll(&mut self, wait: Duration) -> Result<Polled, SourceError>;

    /// In place of `poll` while there is no room for what it would return: waits about `wait`, takes nothing and
    /// keeps our place upstream. The next `poll` goes on where the last one ended.
    fn hold(&mut self, wait: Duration) -> Result<(), SourceError> {
        std::thread::sleep(wait);
        Ok(())
    }

    /// These positions are durable in the manifest; upstream may be told. Call after the manifest transaction,
    /// never before, and call it for every commit: rebalances resume from here.
    fn committed(&mut self, offsets: &Offsets) -> Result<(), SourceError>;

    /// True once a bounded input has been handed over to its end. Streams never finish.
    fn finished(&self) -> bool {
        false
    }

    /// Leaves in good order: tells upstream the last committed positions and that we are gone.
    fn close(self: Box<Self>) -> Result<(), SourceError>;
}

/// What the messages of a topic are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMapping {
    pub topic: String,
    pub source: Source,
    /// Of every record, or with `cluster_header` of those without that header.
    pub cluster: Option<String>,
    /// The name of a record header that says which cluster the record is from (Kafka only).
    pub cluster_header: Option<String>,
}

/// The record header by which our own receivers name the cluster of a record.
pub const CLUSTER_HEADER: &str = "stakeout-cluster";

impl TopicMapping {
    /// All that is wrong with it, one line each. Topic names follow Kafka's rules, for the embedded log too:
    /// they are folder names there.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let named = !self.topic.is_empty() && self.topic.len() <= 249 && self.topic.chars().all(allowed);
        if !named || self.topic == "." || self.topic == ".." {
            mistakes.push(format!("topic `{}`: a name has 1 to 249 letters, digits, dots, `_` or `-`", self.topic));
        }
        let named = [&self.cluster, &self.cluster_header].into_iter().flatten().any(|name| !name.is_empty());
        if self.source.needs_cluster() && !named {
            mistakes.push(format!(
                "topic `{}`: {} events do not say which cluster they come from: name it with `cluster`, or the record \
                 header that does with `cluster_header`",
                self.topic, self.source
            ));
        }
        if self.cluster_header.as_deref() == Some("") {
            mistakes.push(format!("topic `{}`: `cluster_header` has no name", self.topic));
        }
        if self.cluster.as_deref().is_some_and(|name| name.contains(['\n', '\r'])) {
            mistakes.push(format!("topic `{}`: a cluster name is one line", self.topic));
        }
        mistakes
    }
}

/// Wall clock.
pub(crate) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}
