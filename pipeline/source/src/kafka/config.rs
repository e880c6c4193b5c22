//! What is needed to read from Kafka, checked before anything is connected.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::context::Context;
use crate::{SourceError, TopicMapping};

/// Properties that our promises rest on, with the reason or the setting to use instead.
const OURS: [(&str, &str); 10] = [
    ("bootstrap.servers", "set `brokers` instead"),
    ("metadata.broker.list", "set `brokers` instead"),
    ("group.id", "set `group_id` instead"),
    ("group.instance.id", "set `group_instance_id` instead"),
    ("enable.auto.commit", "offsets are committed after the events are durable"),
    ("enable.auto.offset.store", "offsets are committed after the events are durable"),
    ("auto.offset.reset", "a new partition is read from its beginning, a known one from where we stand"),
    ("enable.partition.eof", "lag is measured by other means"),
    ("statistics.interval.ms", "lag is measured with it"),
    ("allow.auto.create.topics", "a mistyped topic is an error"),
];

/// How often librdkafka tells how far it has fetched.
const STATISTICS_EVERY_MS: &str = "5000";

/// What we want other than librdkafka does; properties may say otherwise.
const DEFAULTS: [(&str, &str); 2] = [
    // Added partitions are noticed within half a minute instead of five.
    ("topic.metadata.refresh.interval.ms", "30000"),
    // A batch is fetched whole, whatever its size, and this bounds what it may unpack to: room for the largest record
    // that the other ways in take, and then some. A larger one is an error and a stalled partition, never a skip.
    ("receive.message.max.bytes", "268435456"),
];

#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub brokers: String,
    pub group_id: String,
    /// Static membership: a restart within the session timeout causes no rebalance. One id per process.
    pub group_instance_id: Option<String>,
    pub topics: Vec<TopicMapping>,
    /// librdkafka properties: TLS, SASL and anything else that is not ours.
    pub properties: BTreeMap<String, String>,
    /// A partition with nothing left to read is idle when nothing arrived for so long.
    pub idle_after: Duration,
    /// A partition that has something to read and does not move for so long has stalled.
    pub stall_after: Duration,
}

impl KafkaConfig {
    pub const IDLE_AFTER: Duration = Duration::from_secs(30);

    /// Longer than an election or a broker's restart takes, during which nothing can move.
    pub const STALL_AFTER: Duration = Duration::from_secs(60);

    /// All mistakes at once.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        let mut mistakes = Vec::new();
        if self.brokers.trim().is_empty() {
            mistakes.push("kafka: no brokers\nhint: brokers: host:9092".to_owned());
        }
        if self.group_id.is_empty() {
            mistakes.push("kafka: no group_id".to_owned());
        }
        if self.topics.is_empty() {
            mistakes.push("kafka: no topics".to_owned());
        }
        for (i, mapping) in self.topics.iter().enumerate() {
            mistakes.extend(mapping.mistakes());
            if self.topics[..i].iter().any(|earlier| earlier.topic == mapping.topic) {
                mistakes.push(format!("topic `{}` is named twice", mapping.topic));
            }
        }
        mistakes.extend(refused(&self.properties, &OURS));
        if mistakes.is_empty() { Ok(()) } else { Err(SourceError::Invalid(mistakes.join("\n"))) }
    }

    pub(super) fn consumer(&self, context: Context) -> Result<Arc<BaseConsumer<Context>>, SourceError> {
        self.client().create_with_context(context).map(Arc::new).map_err(creation_error)
    }

    fn client(&self) -> ClientConfig {
        let mut client = base(&self.brokers, &self.properties);
        for (key, value) in DEFAULTS.into_iter().filter(|(key, _)| !self.properties.contains_key(*key)) {
            client.set(key, value);
        }
        client
            .set("group.id", &self.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Never move a position silently: the feed decides when ours does not exist any more.
            .set("auto.offset.reset", "error")
            .set("statistics.interval.ms", STATISTICS_EVERY_MS);
        if let Some(id) = &self.group_instance_id {
            client.set("group.instance.id", id);
        }
        client
    }
}

/// Values may be secrets.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("group_id", &self.group_id)
            .field("group_instance_id", &self.group_instance_id)
            .field("topics", &self.topics)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("idle_after", &self.idle_after)
            .field("stall_after", &self.stall_after)
            .finish()
    }
}

/// What consumers and producers have in common.
pub(super) fn base(brokers: &str, properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", "stakeout");
    for (key, value) in properties {
        client.set(key, value);
    }
    client.set("bootstrap.servers", brokers);
    client
}

/// One line for each property that is not the user's to set.
pub(super) fn refused(properties: &BTreeMap<String, String>, ours: &[(&str, &str)]) -> Vec<String> {
    let why = |key: &str| ours.iter().find(|(name, _)| *name == key).map(|(_, why)| *why);
    let known = properties.keys().filter_map(|key| Some((key, why(key)?)));
    known.map(|(key, why)| format!("kafka: property `{key}` cannot be set\nhint: {why}")).collect()
}

/// Names the property, never its value, which may be a secret.
pub(super) fn creation_error(error: KafkaError) -> SourceError {
    match error {
        KafkaError::ClientConfig(_, what, key, value) if value.is_empty() => {
            SourceError::Invalid(format!("kafka: property `{key}`: {what}"))
        }
        KafkaError::ClientConfig(_, what, key, value) => {
            SourceError::Invalid(format!("kafka: property `{key}`: {}", what.replace(&value, "…")))
        }
        other => SourceError::Invalid(format!("kafka: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use event::Source;

    use super::*;

    fn mapping(topic: &str, source: Source) -> TopicMapping {
        TopicMapping { topic: topic.into(), source, cluster: None, cluster_header: None }
    }

    fn config(properties: &[(&str, &str)]) -> KafkaConfig {
        KafkaConfig {
            brokers: "localhost:9092".into(),
            group_id: "stakeout".into(),
            group_instance_id: None,
            topics: vec![mapping("trail", Source::CloudTrail)],
            properties: properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            idle_after: KafkaConfig::IDLE_AFTER,
            stall_after: KafkaConfig::STALL_AFTER,
        }
    }

    #[test]
    fn refuses_what_would_break_a_promise() {
        assert!(config(&[("fetch.min.bytes", "1")]).check().is_ok());
        let wrong = KafkaConfig {
            brokers: " ".into(),
            topics: vec![mapping("audit", Source::Kubernetes)],
            ..config(&[("enable.auto.commit", "true"), ("group.id", "x")])
        };
        let error = wrong.check().unwrap_err().to_string();
        for expected in ["no brokers", "name it with `cluster`", "`enable.auto.commit` cannot", "`group.id` cannot"] {
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = config(&[("sasl.password", "hunter2"), ("debug", "hunter3")]);
        let error = creation_error(secret.client().create_native_config().err().unwrap()).to_string();
        assert!(error.contains("`debug`") && !error.contains("hunter3"), "{error}");
        assert!(!format!("{secret:?}").contains("hunter"));
    }
}
