//! Bodies into Kafka. A record goes to its token's topic with the cluster in a header, and counts as kept once all
//! replicas in sync have it.

use std::collections::BTreeMap;

use super::sink::first_line;
use super::{Done, NotKept, Record, Sink, Token};
use crate::{CLUSTER_HEADER, Producer, SourceError};

/// Unless the operator's properties say otherwise: a record that cannot be delivered is given up while its sender may
/// still be there, lists of audit events shrink to a tenth, and a few milliseconds gather a batch.
const PROPERTIES: [(&str, &str); 3] =
    [("message.timeout.ms", "15000"), ("compression.type", "zstd"), ("linger.ms", "5")];

pub struct KafkaSink(Producer);

impl KafkaSink {
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<KafkaSink, SourceError> {
        let mut all = properties.clone();
        for (key, value) in PROPERTIES {
            all.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        Ok(KafkaSink(Producer::new(brokers, &all)?))
    }
}

impl Sink for KafkaSink {
    /// The producer says so itself when its queue is full.
    fn ready(&self, _: &Token) -> Result<(), NotKept> {
        Ok(())
    }

    fn send(&self, token: &Token, record: Record, done: Done) -> Result<(), NotKept> {
        let headers: Vec<(&str, &[u8])> =
            token.cluster.iter().map(|cluster| (CLUSTER_HEADER, cluster.as_bytes())).collect();
        // The client copies the payload; the record's share of memory stays taken until it is gone from its queue.
        let Record { payload, held } = record;
        let acknowledged = Box::new(move |kept: Result<(), SourceError>| {
            drop(held);
            done(kept.map_err(|error| of_kafka(&error)));
        });
        self.0.send_acked(&token.topic, &headers, &payload, acknowledged).map_err(|error| of_kafka(&error))
    }
}

fn of_kafka(error: &SourceError) -> NotKept {
    match error {
        SourceError::Busy => NotKept::Busy,
        SourceError::TooLarge { .. } => NotKept::TooLarge(first_line(error)),
        other => NotKept::Failed(first_line(other)),
    }
}
