//! Writing to Kafka, for generated events and tests: idempotent, so that retries neither repeat nor reorder, and
//! strict: a message that could not be delivered is an error of the next call.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tracing::debug;

use super::config::{base, creation_error, refused};
use crate::SourceError;

/// How long to wait for room in the queue or for the last deliveries; librdkafka gives up on a message after five
/// minutes by itself, which is longer than anyone watches a terminal.
const TIMEOUT: Duration = Duration::from_secs(60);

const OURS: [(&str, &str); 4] = [
    ("bootstrap.servers", "set `brokers` instead"),
    ("metadata.broker.list", "set `brokers` instead"),
    ("enable.idempotence", "retries must neither repeat nor reorder"),
    ("acks", "all replicas acknowledge"),
];

pub struct Producer(ThreadedProducer<Deliveries>);

/// Remembers the first message that was given up.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<String>>,
}

impl Producer {
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Producer, SourceError> {
        let mistakes = refused(properties, &OURS);
        if !mistakes.is_empty() {
            return Err(SourceError::Invalid(mistakes.join("\n")));
        }
        let mut client = base(brokers, properties);
        client.set("enable.idempotence", "true");
        client.create_with_context(Deliveries::default()).map(Producer).map_err(creation_error)
    }

    /// Queues one message; without a partition librdkafka chooses one. Waits while the queue is full.
    pub fn send(&self, topic: &str, partition: Option<i32>, payload: &[u8]) -> Result<(), SourceError> {
        let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).payload(payload);
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

impl ClientContext for Deliveries {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka error");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| format!("a message was not delivered: {error}"));
        }
    }
}
