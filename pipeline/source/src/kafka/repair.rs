//! What to make of an error of the consumer: fatal, ours to repair, or librdkafka's to retry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event::Partition;
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use tracing::error;

use super::KafkaFeed;
use super::context::detach;
use super::stall::Remedy;
use super::standing::lag;
use crate::SourceError;

/// For questions on the polling thread in the rare repair of positions: below every sane `max.poll.interval.ms`.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(5);

impl KafkaFeed {
    pub(super) fn judge(&self, error: KafkaError) -> Result<(), SourceError> {
        let code = match error {
            KafkaError::MessageConsumption(code) => code,
            KafkaError::MessageConsumptionFatal(code) => return Err(SourceError::Kafka(with_hint(code))),
            error => return Err(SourceError::Kafka(error.to_string())),
        };
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => self.repair_positions(),
            // librdkafka would go on behind the batch, and its events would be gone.
            Code::BadCompression | Code::NotImplemented | Code::BadMessage => {
                Err(SourceError::Kafka(format!("a batch of records cannot be read: {}", with_hint(code))))
            }
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                Err(SourceError::Kafka(with_hint(code)))
            }
            // A deleted topic is missed by the watcher, who can name it; right after a start it is a broker that does
            // not know everything yet.
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                self.consumer.context().warn("topic", &error.to_string());
                Ok(())
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
        self.assign_anew(&partitions)
    }

    fn assign_anew(&self, partitions: &[Partition]) -> Result<(), SourceError> {
        let context = self.consumer.context();
        let again = || {
            let positions = context.positions(partitions)?;
            detach(&self.consumer, &positions)?;
            context.attach(&self.consumer, &positions)
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
                let labels = [("topic", topic.to_string()), ("partition", partition.to_string())];
                metrics::counter!("stakeout_source_lost_records_total", &labels).increment(lost.unsigned_abs());
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

    /// Helps what stands still, an error if nothing helps.
    pub(super) fn watch_for_stalls(&self) -> Result<(), SourceError> {
        let now = Instant::now();
        let mut stalls = Vec::new();
        {
            let mut state = self.consumer.context().state();
            let state = &mut *state;
            for (partition, assigned) in &mut state.assigned {
                let at = state.cursor.next(partition);
                let behind = !state.paused && lag(at, assigned, now).is_some_and(|lag| lag > 0);
                let fetched_to = assigned.fetched_to;
                if let Some(remedy) = assigned.progress.look((at, fetched_to), behind, now, self.config.stall_after) {
                    stalls.push((partition.clone(), at, remedy));
                }
            }
        }
        for (partition, at, remedy) in stalls {
            self.help(partition, at, remedy)?;
        }
        Ok(())
    }

    fn help(&self, partition: Partition, at: Option<i64>, remedy: Remedy) -> Result<(), SourceError> {
        let after = self.config.stall_after;
        let (topic, number) = (partition.0.clone(), partition.1);
        error!(%topic, partition = number, position = ?at, ?after, ?remedy, "a partition has something to read and stands still");
        metrics::counter!("stakeout_source_stalls_total", "topic" => topic.to_string()).increment(1);
        match remedy {
            Remedy::Seek => {
                let seek = || -> KafkaResult<()> {
                    let positions = self.consumer.context().positions(std::slice::from_ref(&partition))?;
                    self.consumer.pause(&positions)?;
                    seek(self, positions.clone())?;
                    self.consumer.resume(&positions)
                };
                match seek() {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        self.consumer.context().warn("seek", &format!("cannot seek {topic}/{number}: {error}"));
                        let all: Vec<Partition> = self.consumer.context().state().assigned.keys().cloned().collect();
                        self.assign_anew(&all)
                    }
                }
            }
            Remedy::Assign => {
                let all: Vec<Partition> = self.consumer.context().state().assigned.keys().cloned().collect();
                self.assign_anew(&all)
            }
            Remedy::GiveUp => Err(SourceError::Kafka(format!(
                "{topic}/{number} has something to read and stands still at {}, whatever is tried\nhint: a restart \
                 makes new connections; is a record larger than `receive.message.max.bytes`?",
                at.map_or("its beginning".to_owned(), |at| at.to_string())
            ))),
        }
    }
}

fn seek(feed: &KafkaFeed, positions: TopicPartitionList) -> KafkaResult<()> {
    let sought = feed.consumer.seek_partitions(positions, REPAIR_TIMEOUT)?;
    sought.elements().iter().try_for_each(|element| element.error())
}

fn with_hint(code: Code) -> String {
    let hint = match code {
        Code::BadCompression | Code::NotImplemented => {
            let features = ClientConfig::new().create_native_config().and_then(|c| c.get("builtin.features"));
            format!("what this build can do: {}", features.unwrap_or_default())
        }
        Code::BadMessage => "a damaged batch: is it whole on the brokers' other replicas?".to_owned(),
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            "this user needs describe and read on the topics and read on the group".to_owned()
        }
        Code::FencedInstanceId => "another process uses the same `instance`: give each its own (or the group moved between brokers twice in ten \
             minutes: start again)"
            .to_owned(),
        _ => return code.to_string(),
    };
    format!("{code}\nhint: {hint}")
}
