//! The callbacks of the consumer: rebalances, statistics, errors. They run on the thread that polls (in
//! `BaseConsumer::poll`), except that the lag watcher shares the state.
//!
//! On assignment every partition is set to *our* position. On revocation its positions stay: what was handed over
//! is still being sealed by the pipeline, so if the partition comes back, reading goes on behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event::{Partition, Positions};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tracing::{debug, error, info, warn};

use super::stall::Progress;
use super::standing::Foreign;
use crate::cursor::Cursor;

/// The broker's committed offsets only matter for partitions that we never read; a group coordinator that does not
/// answer by then is treated as knowing nothing, which means reading from the beginning.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);

/// One line of each kind of trouble per interval: brokers that are down repeat themselves many times a second.
const WARN_EVERY: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct State {
    pub cursor: Cursor,
    pub assigned: BTreeMap<Partition, Assigned>,
    /// The other partitions of our topics, as far as they have been asked about.
    pub foreign: BTreeMap<Partition, Foreign>,
    /// Nothing may be taken: partitions that are assigned now start paused.
    pub paused: bool,
    /// What the broker has of us as committed, by its own word.
    pub told: Positions,
    /// A commit is on its way to the broker, since then.
    pub telling: Option<Instant>,
    /// The last rebalance could not be carried out.
    pub failure: Option<String>,
}

#[derive(Clone, Copy)]
pub(super) struct Assigned {
    /// Where the group stood according to the broker, for a partition that we never read.
    pub start: Option<i64>,
    pub arrived: Instant,
    pub marks: Option<Marks>,
    /// The next offset to fetch, as of the last statistics.
    pub fetched_to: i64,
    /// Everything below this offset has been fetched and handed to us. It may lie beyond our position: behind the
    /// last message there can be transaction markers.
    pub drained_to: i64,
    pub progress: Progress,
}

impl Assigned {
    fn from(start: Option<i64>) -> Self {
        let now = Instant::now();
        Assigned { start, arrived: now, marks: None, fetched_to: -1, drained_to: -1, progress: Progress::new(now) }
    }
}

/// The broker's word on a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub low: i64,
    pub high: i64,
    pub at: Instant,
}

#[derive(Default)]
pub(super) struct Context {
    state: Mutex<State>,
    warned: Mutex<BTreeMap<String, (Instant, u64)>>,
}

impl Context {
    pub fn new(state: State) -> Self {
        Context { state: Mutex::new(state), ..Context::default() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Warns at once, then at most every [`WARN_EVERY`] with the number of repeats.
    pub fn warn(&self, kind: &str, message: &str) {
        if let Some(repeats) = self.worth_saying(kind, kind) {
            warn!(kind, repeats, "kafka: {message}");
        }
    }

    /// Likewise, for what someone must act on. Several things of one kind are told apart by their `name`.
    pub fn alarm(&self, kind: &str, name: &str, message: &str) {
        if let Some(repeats) = self.worth_saying(kind, &format!("{kind} {name}")) {
            error!(kind, repeats, "kafka: {message}");
        }
    }

    fn worth_saying(&self, kind: &str, key: &str) -> Option<u64> {
        metrics::counter!("stakeout_kafka_warnings_total", "kind" => kind.to_owned()).increment(1);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let repeats = match warned.get_mut(key) {
            Some((at, repeats)) if at.elapsed() < WARN_EVERY => {
                *repeats += 1;
                return None;
            }
            Some((_, repeats)) => *repeats,
            None => 0,
        };
        warned.insert(key.to_owned(), (Instant::now(), 0));
        Some(repeats)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let partitions: Vec<Partition> = keys(partitions);
        let starts = self.committed_by_group(consumer, &partitions);
        {
            let mut state = self.state();
            for partition in &partitions {
                state.foreign.remove(partition);
                state.assigned.insert(partition.clone(), Assigned::from(starts.get(partition).copied()));
            }
        }
        let positions = self.positions(&partitions)?;
        info!(partitions = ?positions, "kafka partitions assigned");
        self.attach(consumer, &positions)
    }

    /// Where to read `partitions` from, as a list for librdkafka.
    pub fn positions(&self, partitions: &[Partition]) -> KafkaResult<TopicPartitionList> {
        let state = self.state();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            let start = state.assigned.get(partition).and_then(|assigned| assigned.start);
            let at = state.cursor.next(partition).or(start).map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&partition.0, partition.1, at)?;
        }
        Ok(list)
    }

    /// The group's committed offsets of those partitions that we have no position of.
    fn committed_by_group(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) -> BTreeMap<Partition, i64> {
        let mut unknown = TopicPartitionList::new();
        for (topic, partition) in partitions.iter().filter(|p| self.state().cursor.next(p).is_none()) {
            unknown.add_partition(topic, *partition);
        }
        if unknown.count() == 0 {
            return BTreeMap::new();
        }
        match consumer.committed_offsets(unknown, COMMITTED_TIMEOUT) {
            Ok(committed) => committed
                .elements()
                .iter()
                .filter_map(|e| Some(((e.topic().into(), e.partition()), e.offset().to_raw().filter(|o| *o >= 0)?)))
                .collect(),
            Err(error) => {
                self.warn("committed", &format!("cannot ask for the group's offsets, beginning at the start: {error}"));
                BTreeMap::new()
            }
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        info!(?partitions, "kafka partitions revoked");
        {
            let mut state = self.state();
            for partition in keys(partitions) {
                state.assigned.remove(&partition);
                state.told.remove(&partition);
            }
        }
        if self.state().paused {
            // A pause would outlive the assignment and meet the partition when it comes back.
            consumer.resume(partitions)?;
        }
        detach(consumer, partitions)
    }

    pub fn attach(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions)?,
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(partitions)?,
        }
        if self.state().paused { consumer.pause(partitions) } else { Ok(()) }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let outcome = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, partitions),
            _ => self.revoke(consumer, partitions),
        };
        if let Err(error) = outcome {
            error!(%error, "kafka rebalance failed");
            self.state().failure = Some(format!("rebalance: {error}"));
        }
    }

    /// Only for monitoring and for the first start of another data directory; the manifest is what counts. What was
    /// refused (a rebalance came between) is told again.
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut state = self.state();
        state.telling = None;
        match result {
            Ok(()) => {
                for told in offsets.elements().iter().filter(|e| e.error().is_ok()) {
                    if let Offset::Offset(at) = told.offset() {
                        state.told.insert((told.topic().into(), told.partition()), at);
                    }
                }
            }
            Err(error) => {
                drop(state);
                self.warn("commit", &format!("offset commit was refused: {error}"));
            }
        }
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let mut state = self.state();
        for ((topic, partition), assigned) in &mut state.assigned {
            let known = statistics.topics.get(&**topic).and_then(|topic| topic.partitions.get(partition));
            let Some(known) = known else { continue };
            // The queue is shared by all partitions: empty means that everything fetched was handed to us. The two
            // numbers are not read in one instant, so the offset must also have been at rest for an interval.
            if known.fetchq_cnt == 0 && known.next_offset == assigned.fetched_to {
                assigned.drained_to = known.next_offset;
            }
            assigned.fetched_to = known.next_offset;
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                debug!(facility, "librdkafka: {message}");
            }
            _ => self.warn(facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Consumer errors also come out of `poll`, where they are judged.
        debug!(%error, reason, "librdkafka error");
    }
}

fn keys(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|e| (Arc::from(e.topic()), e.partition())).collect()
}

pub(super) fn detach(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}
