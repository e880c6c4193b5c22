//! Writing to Kafka: idempotent, so that retries neither repeat nor reorder. Two ways: [`Producer::send`] for streams
//! that stop at the first failure, and [`Producer::send_acked`] for many requests at a time that each want to know
//! when their own record is on the brokers. Memory is bounded by the queue in either.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use tracing::debug;

use super::config::{base, creation_error, refused};
use crate::{RECORD_BYTES_MAX, SourceError};

/// How long to wait for room in the queue or for the last deliveries; librdkafka gives up on a message after five
/// minutes by itself, which is longer than anyone watches a terminal.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Dropping a producer gives up what is queued; telling those who wait takes no network.
const PURGE_TIMEOUT: Duration = Duration::from_secs(1);

/// What waits in the queue: two of the largest records.
const QUEUE_KBYTES: usize = 2 * RECORD_BYTES_MAX / 1024;

const OURS: [(&str, &str); 4] = [
    ("bootstrap.servers", "set `brokers` instead"),
    ("metadata.broker.list", "set `brokers` instead"),
    ("enable.idempotence", "retries must neither repeat nor reorder"),
    ("acks", "all replicas acknowledge"),
];

pub struct Producer(ThreadedProducer<Deliveries>);

/// Told once about a record: on the brokers, or given up. Called on the producer's own thread, which everybody else
/// waits for: it hands the word on and returns, and it does not panic.
pub type Acknowledge = Box<dyn FnOnce(Result<(), SourceError>) + Send>;

/// Remembers the first message of [`Producer::send`] that was given up.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<String>>,
}

/// Who wants to hear of a record. The mutex only makes the closure shareable, as the client library asks.
pub(super) struct Interest(Option<Mutex<Acknowledge>>);

type Record<'a> = BaseRecord<'a, (), [u8], Box<Interest>>;

impl Producer {
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Producer, SourceError> {
        let mistakes = refused(properties, &OURS);
        if !mistakes.is_empty() {
            return Err(SourceError::Invalid(mistakes.join("\n")));
        }
        let mut client = base(brokers, properties);
        client.set("enable.idempotence", "true");
        // The topic's own limit on a record decides, not a smaller one here.
        let limits = [("message.max.bytes", RECORD_BYTES_MAX), ("queue.buffering.max.kbytes", QUEUE_KBYTES)];
        for (key, value) in limits.into_iter().filter(|(key, _)| !properties.contains_key(*key)) {
            client.set(key, value.to_string());
        }
        client.create_with_context(Deliveries::default()).map(Producer).map_err(creation_error)
    }

    /// Queues one message; without a partition librdkafka chooses one. Waits while the queue is full. A message that
    /// could not be delivered is an error of the next call.
    pub fn send(&self, topic: &str, partition: Option<i32>, payload: &[u8]) -> Result<(), SourceError> {
        let mut record: Record<'_> = BaseRecord::with_opaque_to(topic, Box::new(Interest(None))).payload(payload);
        record.partition = partition;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            self.check()?;
            record = match self.0.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    back
                }
                Err((error, _)) => return Err(SourceError::Kafka(format!("send to {topic}: {error}"))),
            };
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Queues one record and returns at once. `Ok`: `done` will be called, with `Ok` once all replicas in sync have
    /// the record, with an error once it was given up (`message.timeout.ms`, five minutes unless the properties say
    /// less). Records travel in batches of up to `batch.size` (1 MB), which a topic takes or refuses as a whole: one
    /// whose `max.message.bytes` is smaller wants a smaller batch here, too. `Err`: nothing was queued and `done` was
    /// dropped uncalled; [`SourceError::Busy`] heals by itself.
    pub fn send_acked(
        &self,
        topic: &str,
        headers: &[(&str, &[u8])],
        payload: &[u8],
        done: Acknowledge,
    ) -> Result<(), SourceError> {
        let interest = Box::new(Interest(Some(Mutex::new(done))));
        let mut record: Record<'_> = BaseRecord::with_opaque_to(topic, interest).payload(payload);
        if !headers.is_empty() {
            let insert =
                |all: OwnedHeaders, (key, value): &(&str, &[u8])| all.insert(Header { key, value: Some(*value) });
            record.headers = Some(headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), insert));
        }
        self.0.send(record).map_err(|(error, _)| undelivered(topic, payload.len(), &error))
    }

    /// Returns once everything sent was acknowledged.
    pub fn flush(&self) -> Result<(), SourceError> {
        let flushed = self.0.flush(TIMEOUT);
        self.check()?;
        flushed.map_err(|error| SourceError::Kafka(format!("flush: {error}")))
    }

    fn check(&self) -> Result<(), SourceError> {
        let failed = self.0.context().failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().map_or(Ok(()), |why| Err(SourceError::Kafka(why.clone())))
    }
}

/// Nobody waits for ever: what is still queued or on its way is given up, and its `done` says so.
impl Drop for Producer {
    fn drop(&mut self) {
        self.0.purge(PurgeConfig::default().queue().inflight());
        let _ = self.0.flush(PURGE_TIMEOUT);
    }
}

fn undelivered(topic: &str, bytes: usize, error: &KafkaError) -> SourceError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => SourceError::Busy,
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => SourceError::TooLarge { topic: topic.to_owned(), bytes },
        Some(code) => SourceError::Kafka(format!("a record for topic `{topic}` was not delivered: {code}")),
        None => SourceError::Kafka(format!("a record for topic `{topic}` was not delivered: {error}")),
    }
}

impl ClientContext for Deliveries {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka error");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Interest>;

    fn delivery(&self, result: &DeliveryResult<'_>, interest: Box<Interest>) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, record)) => Err(undelivered(record.topic(), record.payload_len(), error)),
        };
        match (interest.0, outcome) {
            (Some(done), outcome) => done.into_inner().unwrap_or_else(PoisonError::into_inner)(outcome),
            (None, Ok(())) => {}
            (None, Err(error)) => {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| error.to_string());
            }
        }
    }
}
