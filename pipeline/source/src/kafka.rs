//! Kafka as a feed: one consumer of a group, polled on the caller's thread.
//!
//! The manifest rules. On assignment every partition is set to our position: the manifest's, or what this process
//! handed over beyond it; only a partition that this data directory never read starts from the group's committed
//! offset, else from its beginning. Offsets go to the broker after the manifest transaction, for monitoring.
//!
//! Rebalances need nothing from the caller but that it keeps sealing what it was handed and reports every commit.
//! After a revocation nothing more of the partition is handed over. If it comes back, reading goes on behind what
//! was handed over before, so the ranges of this data directory continue. What another member of the group read in
//! between is then read again here, into another data directory: across members delivery is at least once.
//!
//! Brokers that are down, elections and the like are warned about and retried inside librdkafka.

mod config;
mod context;
mod producer;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::{Message, Offsets, Origin, Partition, PartitionState, Polled, Positions, Source};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tracing::{error, info};

pub use config::KafkaConfig;
pub use producer::{Acknowledge, Producer};

use crate::cursor::Cursor;
use crate::feed::now;
use crate::{Feed, POLL_BYTES_MAX, POLL_MESSAGES_MAX, SourceError};
use config::creation_error;
use context::{Assigned, Context, attach, detach};
use watch::{FRESH, Watch};

/// After the first message of a poll, how long to wait for company: batches are cheaper than single events, and
/// nobody notices a fiftieth of a second.
const LINGER: Duration = Duration::from_millis(20);

/// How long opening waits for a broker's word on the topics. If none answers, the topics are taken on trust.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// For questions on the polling thread in the rare repair of positions: below every sane `max.poll.interval.ms`.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(5);

pub struct KafkaFeed {
    // Dropped before the consumer, of which it holds a share.
    watch: Option<Watch>,
    consumer: Arc<BaseConsumer<Context>>,
    topics: BTreeMap<Arc<str>, Mapped>,
    idle_after: Duration,
    /// The last positions told to the broker.
    told: Positions,
    /// Reported by the next poll, after what was taken before it.
    failure: Option<SourceError>,
}

struct Mapped {
    source: Source,
    cluster: Option<Arc<str>>,
}

impl KafkaFeed {
    /// Joins the group. `positions` are the manifest's.
    pub fn open(config: &KafkaConfig, positions: Positions) -> Result<KafkaFeed, SourceError> {
        config.check()?;
        let context = Context::new(Cursor::new(positions));
        let consumer: BaseConsumer<Context> = config.client().create_with_context(context).map_err(creation_error)?;
        let topics = config.topics.iter().map(|mapping| {
            let cluster = mapping.cluster.as_deref().map(Arc::from);
            (Arc::from(mapping.topic.as_str()), Mapped { source: mapping.source, cluster })
        });
        let mut feed = KafkaFeed {
            watch: None,
            consumer: Arc::new(consumer),
            topics: topics.collect(),
            idle_after: config.idle_after,
            told: Positions::new(),
            failure: None,
        };
        feed.check_topics()?;
        let names: Vec<&str> = feed.topics.keys().map(|name| &**name).collect();
        feed.consumer.subscribe(&names).map_err(|error| SourceError::Kafka(error.to_string()))?;
        feed.watch = Some(Watch::start(feed.consumer.clone())?);
        info!(brokers = config.brokers, group = config.group_id, topics = ?names, "following kafka");
        Ok(feed)
    }

    /// An error if the cluster says that it has no such topic; fine if no broker answers.
    fn check_topics(&self) -> Result<(), SourceError> {
        let metadata = match self.consumer.fetch_metadata(None, METADATA_TIMEOUT) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.consumer.context().warn("metadata", &format!("no broker answers yet: {error}"));
                return Ok(());
            }
        };
        let there = |name: &str| metadata.topics().iter().any(|topic| topic.name() == name);
        let missing: Vec<&str> = self.topics.keys().map(|name| &**name).filter(|name| !there(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(SourceError::Invalid(format!(
            "kafka has no topic `{}`, or we may not see it\nhint: create it, or allow this user to describe and read it",
            missing.join("`, `")
        )))
    }

    fn take(&self, message: &BorrowedMessage<'_>) -> Option<Message> {
        let (topic, mapped) = self.topics.get_key_value(message.topic())?;
        let (partition, offset) = (message.partition(), message.offset());
        let mut state = self.consumer.context().state();
        if !state.cursor.take(topic, partition, offset) {
            return None;
        }
        if let Some(assigned) = state.assigned.get_mut(&(topic.clone(), partition)) {
            assigned.arrived = Instant::now();
        }
        // A record without a value (a tombstone of a compacted topic) carries no event; its offset is covered.
        let bytes = message.payload()?.to_vec();
        Some(Message {
            source: mapped.source,
            cluster: mapped.cluster.clone(),
            origin: Origin::Live,
            topic: topic.clone(),
            partition,
            offset,
            file_sha256: None,
            received: now(),
            bytes,
        })
    }

    /// Takes messages until a limit or the time is reached.
    fn gather(&mut self, wait: Duration) -> Vec<Message> {
        let consumer = self.consumer.clone();
        let mut deadline = Instant::now() + wait;
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while bytes < POLL_BYTES_MAX && messages.len() < POLL_MESSAGES_MAX && self.failure.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            match consumer.poll(left) {
                None if left.is_zero() => break,
                // A callback was served; there may be time left.
                None => {}
                Some(Ok(message)) => {
                    if let Some(message) = self.take(&message) {
                        if messages.is_empty() {
                            deadline = deadline.min(Instant::now() + LINGER);
                        }
                        bytes += message.bytes.len();
                        messages.push(message);
                    }
                }
                Some(Err(error)) => self.failure = self.judge(error).err(),
            }
            if let Some(failure) = consumer.context().state().failure.take() {
                self.failure.get_or_insert(SourceError::Kafka(failure));
            }
        }
        messages
    }

    /// Fatal, ours to repair, or librdkafka's to retry.
    fn judge(&self, error: KafkaError) -> Result<(), SourceError> {
        use RDKafkaErrorCode as Code;
        let KafkaError::MessageConsumption(code) = error else {
            return Err(SourceError::Kafka(error.to_string()));
        };
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => self.repair_positions(),
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                self.consumer.context().warn("topic", &error.to_string());
                self.check_topics()
            }
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                let hint = "this user needs describe and read on the topics and read on the group";
                Err(SourceError::Kafka(format!("{code}\nhint: {hint}")))
            }
            _ => {
                self.consumer.context().warn(&format!("{code:?}"), &error.to_string());
                Ok(())
            }
        }
    }

    /// A position that the broker does not have. If retention removed what we had not read, that is loss upstream:
    /// said loudly, counted, and covered by our range so that continuity holds. If our position is beyond the end,
    /// the topic is not the one we know.
    fn repair_positions(&self) -> Result<(), SourceError> {
        let context = self.consumer.context();
        let partitions: Vec<Partition> = context.state().assigned.keys().cloned().collect();
        for (topic, partition) in &partitions {
            match self.consumer.fetch_watermarks(topic, *partition, REPAIR_TIMEOUT) {
                Ok((low, high)) => self.repair(topic, *partition, low, high)?,
                Err(error) => context.warn("repair", &format!("cannot ask for {topic}/{partition}: {error}")),
            }
        }
        // After this error librdkafka stopped fetching the partition and refuses to seek: assign anew.
        let again = || {
            let positions = context.positions(&partitions)?;
            detach(&self.consumer, &positions)?;
            attach(&self.consumer, &positions)
        };
        again().map_err(|error| SourceError::Kafka(format!("cannot assign anew: {error}")))
    }

    fn repair(&self, topic: &Arc<str>, partition: i32, low: i64, high: i64) -> Result<(), SourceError> {
        let mut state = self.consumer.context().state();
        let key = (topic.clone(), partition);
        match state.cursor.next(&key) {
            Some(ours) if ours > high => {
                Err(SourceError::Lost { topic: topic.to_string(), partition, ours, low, high })
            }
            Some(ours) if ours < low => {
                let lost = low - ours;
                error!(%topic, partition, ours, low, lost, "records were removed from kafka before we read them");
                metrics::counter!("stakeout_kafka_offsets_lost_total", "topic" => topic.to_string())
                    .increment(lost.unsigned_abs());
                state.cursor.skip(topic, partition, low);
                Ok(())
            }
            Some(_) => Ok(()),
            None => {
                // Only the broker's committed offset, which is a hint: from the beginning, then.
                let hint = state.assigned.get_mut(&key);
                if let Some(assigned) = hint.filter(|a| a.start.is_some_and(|at| at < low || at > high)) {
                    assigned.start = None;
                }
                Ok(())
            }
        }
    }

    fn states(&self) -> Vec<PartitionState> {
        let state = self.consumer.context().state();
        let known = state.assigned.iter().filter_map(|((topic, partition), assigned)| {
            let source = self.topics.get(topic)?.source;
            let lag = lag(state.cursor.next(&(topic.clone(), *partition)), assigned, Instant::now());
            let idle = lag == Some(0) && assigned.arrived.elapsed() >= self.idle_after;
            Some(PartitionState { source, topic: topic.clone(), partition: *partition, lag, idle })
        });
        known.collect()
    }

    /// Those of `offsets` that are ours to tell and new to the broker.
    fn untold(&self, offsets: &Offsets) -> Vec<(Partition, i64)> {
        let state = self.consumer.context().state();
        let ours = state.assigned.keys().filter_map(|p| Some((p.clone(), *offsets.0.get(p)?)));
        ours.filter(|(partition, at)| self.told.get(partition) != Some(at)).collect()
    }

    fn tell(&self, positions: impl IntoIterator<Item = (Partition, i64)>, mode: CommitMode) {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), at) in positions {
            list.add_partition_offset(&topic, partition, Offset::Offset(at)).expect("positions are not negative");
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = self.consumer.commit(&list, mode) {
            self.consumer.context().warn("commit", &format!("cannot commit offsets: {error}"));
        }
    }
}

impl Feed for KafkaFeed {
    fn poll(&mut self, wait: Duration) -> Result<Polled, SourceError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let messages = self.gather(wait);
        let ranges = self.consumer.context().state().cursor.drain();
        match self.failure.take() {
            Some(failure) if ranges.is_empty() => Err(failure),
            failure => {
                self.failure = failure;
                Ok(Polled { messages, ranges, partitions: self.states() })
            }
        }
    }

    fn committed(&mut self, offsets: &Offsets) -> Result<(), SourceError> {
        self.consumer.context().state().cursor.raise(&offsets.0);
        let untold = self.untold(offsets);
        self.tell(untold.iter().cloned(), CommitMode::Async);
        self.told.extend(untold);
        Ok(())
    }

    fn close(mut self: Box<Self>) -> Result<(), SourceError> {
        self.watch = None;
        let assigned = self.consumer.context().state().assigned.clone();
        let told = std::mem::take(&mut self.told);
        self.tell(told.into_iter().filter(|(p, _)| assigned.contains_key(p)), CommitMode::Sync);
        // Dropping the consumer leaves the group.
        Ok(())
    }
}

/// Records between our position and the end of the partition; `None` while the broker's word is missing or old.
fn lag(next: Option<i64>, assigned: &Assigned, now: Instant) -> Option<i64> {
    let marks = assigned.marks.filter(|marks| now.duration_since(marks.at) < FRESH)?;
    if assigned.drained_to >= marks.high {
        return Some(0);
    }
    let at = next.or(assigned.start).unwrap_or(marks.low);
    Some((marks.high - at.max(marks.low)).max(0))
}

#[cfg(test)]
mod tests {
    use super::context::Marks;
    use super::*;

    #[test]
    fn lag_is_known_only_by_a_fresh_word_of_the_broker() {
        let now = Instant::now();
        let check = |next, start, marks: Option<(i64, i64)>, drained_to, age_s, expected| {
            let at = now.checked_sub(Duration::from_secs(age_s)).unwrap();
            let marks = marks.map(|(low, high)| Marks { low, high, at });
            let assigned = Assigned { start, arrived: now, marks, fetched_to: -1, drained_to };
            assert_eq!(lag(next, &assigned, now), expected);
        };
        check(Some(7), None, Some((0, 10)), -1, 1, Some(3));
        check(Some(10), None, Some((0, 10)), -1, 1, Some(0));
        check(Some(12), None, Some((0, 10)), -1, 1, Some(0));
        check(Some(9), None, Some((0, 10)), 10, 1, Some(0));
        check(Some(9), None, Some((0, 11)), 10, 1, Some(2));
        check(None, None, Some((4, 10)), -1, 1, Some(6));
        check(None, Some(9), Some((4, 10)), -1, 1, Some(1));
        check(Some(10), None, Some((0, 10)), -1, 60, None);
        check(Some(10), None, None, -1, 1, None);
    }
}
