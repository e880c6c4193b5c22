//! Asks the brokers what polling does not tell: where partitions end, how far other members of the group are, whether
//! our topics exist. On a thread of its own, because a question takes a round trip or, when a broker is down, a
//! timeout, and polling must not wait for either. An old answer counts as none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event::Partition;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaRespErr;

use super::context::{Context, Marks};
use super::standing::Foreign;
use crate::SourceError;

const ASK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What others hold and what exists changes slowly.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(consumer: Arc<BaseConsumer<Context>>, topics: Vec<Arc<str>>) -> Result<Watch, SourceError> {
        let (stop, stopped) = channel();
        let rounds = Rounds { consumer, topics, stopped, partitions: BTreeMap::new() };
        let thread = std::thread::Builder::new().name("kafka-watch".to_owned()).spawn(move || rounds.run());
        let thread = thread.map_err(SourceError::io("start the kafka watch thread"))?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panics only if a bug makes it; the feed goes down anyway.
            let _ = thread.join();
        }
    }
}

struct Rounds {
    consumer: Arc<BaseConsumer<Context>>,
    topics: Vec<Arc<str>>,
    stopped: Receiver<()>,
    /// How many partitions a topic has, by its brokers' last word.
    partitions: BTreeMap<Arc<str>, usize>,
}

impl Rounds {
    fn run(mut self) {
        let (mut wait, mut looked_around) = (Duration::from_millis(200), None::<Instant>);
        while self.stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            let assigned: Vec<Partition> = self.consumer.context().state().assigned.keys().cloned().collect();
            for partition in assigned {
                if self.stopping() {
                    return;
                }
                self.ask(&partition);
            }
            if looked_around.is_none_or(|at| at.elapsed() >= LOOK_AROUND_EVERY) {
                looked_around = Some(Instant::now());
                self.look_for_topics();
                self.look_at_others();
            }
            wait = ASK_EVERY;
        }
    }

    fn stopping(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn ask(&self, partition: &Partition) {
        if let Some(marks) = self.marks(partition)
            && let Some(assigned) = self.consumer.context().state().assigned.get_mut(partition)
        {
            assigned.marks = Some(marks);
        }
    }

    fn marks(&self, (topic, partition): &Partition) -> Option<Marks> {
        let asked = Instant::now();
        match self.consumer.fetch_watermarks(topic, *partition, ANSWER_TIMEOUT) {
            Ok((low, high)) => Some(Marks { low, high, at: asked }),
            Err(error) => {
                let context = self.consumer.context();
                context.warn("lag", &format!("cannot ask for the end of {topic}/{partition}: {error}"));
                None
            }
        }
    }

    /// A topic can be deleted while we read it. The others go on; it is missed loudly until it comes back or the
    /// config no longer names it.
    fn look_for_topics(&mut self) {
        let context = self.consumer.context();
        for topic in &self.topics {
            if self.stopping() {
                return;
            }
            let metadata = match self.consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT) {
                Ok(metadata) => metadata,
                Err(error) => {
                    context.warn("metadata", &format!("cannot ask for topic `{topic}`: {error}"));
                    continue;
                }
            };
            let Some(found) = metadata.topics().iter().find(|found| found.name() == &**topic) else { continue };
            let missing = found.error() == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
            let gauge = metrics::gauge!("stakeout_source_topic_missing", "topic" => topic.to_string());
            gauge.set(if missing { 1.0 } else { f64::NAN });
            if missing {
                self.partitions.remove(topic);
                context.alarm("missing", topic, &missing_topic(topic));
            } else {
                self.partitions.insert(topic.clone(), found.partitions().len());
            }
        }
    }

    /// How far the group is with the partitions that are not ours.
    fn look_at_others(&self) {
        let context = self.consumer.context();
        let mut others = TopicPartitionList::new();
        {
            let mut state = context.state();
            for (topic, count) in &self.partitions {
                for partition in 0..i32::try_from(*count).unwrap_or(i32::MAX) {
                    if !state.assigned.contains_key(&(topic.clone(), partition)) {
                        others.add_partition(topic, partition);
                    }
                }
            }
            let known = |p: &Partition| others.find_partition(&p.0, p.1).is_some();
            state.foreign.retain(|partition, _| known(partition));
        }
        if others.count() == 0 {
            return;
        }
        let committed = match self.consumer.committed_offsets(others, ANSWER_TIMEOUT) {
            Ok(committed) => committed,
            Err(error) => {
                context.warn("group", &format!("cannot ask how far the group is: {error}"));
                return;
            }
        };
        for other in committed.elements() {
            if self.stopping() {
                return;
            }
            let partition: Partition = (other.topic().into(), other.partition());
            let Some(marks) = self.marks(&partition) else { continue };
            let offset = other.offset().to_raw().filter(|offset| *offset >= 0);
            let mut state = context.state();
            if !state.assigned.contains_key(&partition) {
                state.foreign.entry(partition).or_insert_with(|| Foreign::new(offset, marks)).hear(offset, marks);
            }
        }
    }
}

pub(super) fn missing_topic(topic: &str) -> String {
    format!(
        "there is no topic `{topic}` any more, or we may not see it; the other topics go on\nhint: was it deleted? \
         create it under another name, or take it out of the config"
    )
}
