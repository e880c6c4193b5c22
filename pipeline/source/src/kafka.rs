//! Kafka as a feed: one consumer of a group, polled on the caller's thread.
//!
//! The manifest rules. On assignment every partition is set to our position: the manifest's, or what this process
//! handed over beyond it; only a partition that this data directory never read starts from the group's committed
//! offset, else from its beginning. Offsets go to the broker after the manifest transaction, for monitoring. The group
//! is Stakeout's own: another program that commits in it moves the start of partitions that were never read.
//!
//! Rebalances need nothing from the caller but that it keeps sealing what it was handed and reports every commit.
//! After a revocation nothing more of the partition is handed over. If it comes back, reading goes on behind what
//! was handed over before, so the ranges of this data directory continue. What another member of the group read in
//! between is then read again here, into another data directory: across members delivery is at least once.
//! What the watermark makes of rebalances is in `standing.rs`.
//!
//! While the caller has no room ([`Feed::hold`]), partitions are paused and polling goes on, so that the group keeps
//! us. Brokers that are down, elections and the like are warned about and retried inside librdkafka.

mod config;
mod context;
mod gauges;
mod header;
mod producer;
mod rejoin;
mod repair;
mod stall;
mod standing;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::{Message, Offsets, Origin, Partition, PartitionState, Polled, Positions};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tracing::info;

pub use config::KafkaConfig;
pub use producer::{Acknowledge, Producer};

use crate::cursor::Cursor;
use crate::feed::now;
use crate::{Feed, POLL_BYTES_MAX, POLL_MESSAGES_MAX, SourceError};
use context::{Context, State};
use gauges::Gauges;
use header::Mapped;
use rejoin::Membership;
use standing::{ATTENDED, lag};
use watch::{Watch, missing_topic};

/// After the first message of a poll, how long to wait for company: batches are cheaper than single events, and
/// nobody notices a fiftieth of a second.
const LINGER: Duration = Duration::from_millis(20);

/// How long opening waits for a broker's word on the topics. If none answers, the topics are taken on trust.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// A pause throws away what librdkafka has fetched ahead, so it is not worth its while for less; and it is far below
/// every sane `max.poll.interval.ms`.
const PAUSE_AFTER: Duration = Duration::from_millis(500);

/// A commit that the broker did not confirm by then is sent again.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(10);

pub struct KafkaFeed {
    // Dropped before the consumer, of which it holds a share.
    watch: Option<Watch>,
    consumer: Arc<BaseConsumer<Context>>,
    config: KafkaConfig,
    topics: BTreeMap<Arc<str>, Mapped>,
    membership: Membership,
    attended: Duration,
    /// The manifest's positions.
    durable: Positions,
    /// No poll since then: the caller has no room.
    held_since: Option<Instant>,
    /// Taken while partitions were being paused; the next poll begins with them.
    early: Vec<Message>,
    gauges: Gauges,
    /// Reported by the next poll, after what was taken before it.
    failure: Option<SourceError>,
}

impl KafkaFeed {
    /// Joins the group. `positions` are the manifest's.
    pub fn open(config: &KafkaConfig, positions: Positions) -> Result<KafkaFeed, SourceError> {
        config.check()?;
        let state = State { cursor: Cursor::new(positions.clone()), ..State::default() };
        let topics = config.topics.iter().map(Mapped::new).map(|mapped| (mapped.topic.clone(), mapped));
        let mut feed = KafkaFeed {
            watch: None,
            consumer: config.consumer(Context::new(state))?,
            config: config.clone(),
            topics: topics.collect(),
            membership: Membership::default(),
            attended: ATTENDED,
            durable: positions,
            held_since: None,
            early: Vec::new(),
            gauges: Gauges::new(),
            failure: None,
        };
        feed.check_topics()?;
        feed.join()?;
        let names: Vec<&Arc<str>> = feed.topics.keys().collect();
        info!(brokers = config.brokers, group = config.group_id, topics = ?names, "following kafka");
        Ok(feed)
    }

    /// Asks the group for partitions.
    fn join(&mut self) -> Result<(), SourceError> {
        let names: Vec<&str> = self.topics.keys().map(|name| &**name).collect();
        self.consumer.subscribe(&names).map_err(|error| SourceError::Kafka(error.to_string()))?;
        self.watch = Some(Watch::start(self.consumer.clone(), self.topics.keys().cloned().collect())?);
        Ok(())
    }

    /// A topic that is not there and that we never read is a mistake of the config: an error that names it. One that
    /// we did read was deleted, which must not keep the other topics from being read. Fine if no broker answers.
    fn check_topics(&self) -> Result<(), SourceError> {
        let context = self.consumer.context();
        let metadata = match self.consumer.fetch_metadata(None, METADATA_TIMEOUT) {
            Ok(metadata) => metadata,
            Err(error) => {
                context.warn("metadata", &format!("no broker answers yet: {error}"));
                return Ok(());
            }
        };
        let there = |name: &str| metadata.topics().iter().any(|topic| topic.name() == name);
        let missing = self.topics.keys().filter(|name| !there(name));
        let (deleted, unknown): (Vec<&Arc<str>>, Vec<_>) =
            missing.partition(|name| self.durable.keys().any(|(topic, _)| topic == *name));
        deleted.iter().for_each(|name| context.alarm("missing", name, &missing_topic(name)));
        if unknown.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = unknown.iter().map(|name| &***name).collect();
        Err(SourceError::Invalid(format!(
            "kafka has no topic `{}`, or we may not see it\nhint: create it, or allow this user to describe and read it",
            names.join("`, `")
        )))
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) -> Option<Message> {
        let mapped = self.topics.get_mut(message.topic())?;
        let topic = mapped.topic.clone();
        let (partition, offset) = (message.partition(), message.offset());
        {
            let mut state = self.consumer.context().state();
            if !state.cursor.take(&topic, partition, offset) {
                return None;
            }
            if let Some(assigned) = state.assigned.get_mut(&(topic.clone(), partition)) {
                assigned.arrived = Instant::now();
            }
        }
        // A record without a value (a tombstone of a compacted topic) carries no event; its offset is covered.
        let bytes = message.payload()?.to_vec();
        Some(Message {
            source: mapped.source,
            cluster: mapped.cluster_of(message),
            origin: Origin::Live,
            topic,
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
        let mut messages = std::mem::take(&mut self.early);
        let mut bytes = messages.iter().map(|message| message.bytes.len()).sum::<usize>();
        while bytes < POLL_BYTES_MAX && messages.len() < POLL_MESSAGES_MAX && self.may_poll() {
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
                Some(Err(error)) => self.heed(error),
            }
            self.heed_callbacks();
        }
        messages
    }

    fn may_poll(&self) -> bool {
        self.failure.is_none() && !self.membership.over
    }

    fn heed(&mut self, error: KafkaError) {
        if !self.membership.heed(&error) {
            self.failure = self.judge(error).err();
        }
    }

    fn heed_callbacks(&mut self) {
        if let Some(failure) = self.consumer.context().state().failure.take() {
            self.failure.get_or_insert(SourceError::Kafka(failure));
        }
    }

    /// Pauses or resumes all that is assigned; what is assigned later follows.
    fn pause(&mut self, paused: bool) -> Result<(), SourceError> {
        let context = self.consumer.context();
        if std::mem::replace(&mut context.state().paused, paused) == paused {
            return Ok(());
        }
        metrics::gauge!("stakeout_source_paused").set(if paused { 1.0 } else { 0.0 });
        if paused {
            metrics::counter!("stakeout_source_pauses_total").increment(1);
        }
        let assigned: Vec<Partition> = context.state().assigned.keys().cloned().collect();
        let set = || -> KafkaResult<()> {
            let list = context.positions(&assigned)?;
            if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) }
        };
        set().map_err(|error| SourceError::Kafka(format!("cannot pause or resume: {error}")))
    }

    /// What is due beside messages, whether or not there is room for any.
    fn look_after(&mut self) {
        if self.failure.is_none() {
            self.failure = self.watch_for_stalls().err();
        }
        self.tell();
        if self.gauges.due() {
            let state = self.consumer.context().state();
            let stalled = state.assigned.values().filter(|assigned| assigned.progress.stalled()).count();
            let positions: Vec<_> = state.assigned.keys().map(|p| (p.clone(), state.cursor.next(p))).collect();
            drop(state);
            self.gauges.show(&positions, &self.durable, stalled);
        }
    }

    fn states(&self) -> Vec<PartitionState> {
        let state = self.consumer.context().state();
        let now = Instant::now();
        let ours = state.assigned.iter().filter_map(|((topic, partition), assigned)| {
            let source = self.topics.get(topic)?.source;
            let lag = lag(state.cursor.next(&(topic.clone(), *partition)), assigned, now);
            let idle = lag == Some(0) && assigned.arrived.elapsed() >= self.config.idle_after;
            Some(PartitionState { source, topic: topic.clone(), partition: *partition, lag, idle })
        });
        let held = state.foreign.iter().filter(|(_, foreign)| foreign.holds(now, self.attended));
        let held: BTreeSet<&Partition> =
            held.map(|(partition, _)| partition).chain(self.membership.waits_for()).collect();
        let held = held.into_iter().filter(|partition| !state.assigned.contains_key(partition));
        let held = held.filter_map(|(topic, partition)| {
            let source = self.topics.get(topic)?.source;
            Some(PartitionState { source, topic: topic.clone(), partition: *partition, lag: None, idle: false })
        });
        ours.chain(held).collect()
    }

    /// Those of the manifest's positions that are ours to tell and new to the broker.
    fn untold(&self) -> Vec<(Partition, i64)> {
        let state = self.consumer.context().state();
        let ours = state.assigned.keys().filter_map(|p| Some((p.clone(), *self.durable.get(p)?)));
        ours.filter(|(partition, at)| state.told.get(partition) != Some(at)).collect()
    }

    /// Tells the broker what is durable, one commit at a time.
    fn tell(&self) {
        let on_its_way = |since: Instant| since.elapsed() < TELL_AGAIN_AFTER;
        if self.consumer.context().state().telling.is_some_and(on_its_way) {
            return;
        }
        let untold = self.untold();
        if !untold.is_empty() {
            self.consumer.context().state().telling = Some(Instant::now());
            self.commit(untold, CommitMode::Async);
        }
    }

    fn commit(&self, positions: Vec<(Partition, i64)>, mode: CommitMode) {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), at) in positions {
            list.add_partition_offset(&topic, partition, Offset::Offset(at)).expect("positions are not negative");
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
        self.held_since = None;
        if self.membership.over {
            self.join_again()?;
        }
        self.pause(false)?;
        let messages = self.gather(wait);
        self.look_after();
        let ranges = self.consumer.context().state().cursor.drain();
        match self.failure.take() {
            Some(failure) if ranges.is_empty() => Err(failure),
            failure => {
                self.failure = failure;
                Ok(Polled { messages, ranges, partitions: self.states() })
            }
        }
    }

    fn hold(&mut self, wait: Duration) -> Result<(), SourceError> {
        if self.held_since.get_or_insert_with(Instant::now).elapsed() < PAUSE_AFTER {
            std::thread::sleep(wait);
            return Ok(());
        }
        if self.failure.is_some() {
            // It waits for the next poll: until then what was handed over before may still be committed.
            std::thread::sleep(wait);
            return Ok(());
        }
        if self.membership.over {
            self.join_again()?;
        }
        self.pause(true)?;
        let (consumer, deadline) = (self.consumer.clone(), Instant::now() + wait);
        while self.may_poll() {
            let left = deadline.saturating_duration_since(Instant::now());
            match consumer.poll(left) {
                None if left.is_zero() => break,
                None => {}
                // A message can have been on its way when its partition was paused: one a partition at most.
                Some(Ok(message)) => {
                    let message = self.take(&message);
                    self.early.extend(message);
                }
                Some(Err(error)) => self.heed(error),
            }
            self.heed_callbacks();
        }
        self.look_after();
        Ok(())
    }

    fn committed(&mut self, offsets: &Offsets) -> Result<(), SourceError> {
        self.consumer.context().state().cursor.raise(&offsets.0);
        self.durable.clone_from(&offsets.0);
        self.tell();
        Ok(())
    }

    fn close(mut self: Box<Self>) -> Result<(), SourceError> {
        self.watch = None;
        // One that is on its way may be refused; this one is waited for.
        let untold = self.untold();
        if !untold.is_empty() && !self.membership.over {
            self.commit(untold, CommitMode::Sync);
        }
        // Dropping the consumer leaves the group.
        Ok(())
    }
}

#[cfg(test)]
mod tests;
