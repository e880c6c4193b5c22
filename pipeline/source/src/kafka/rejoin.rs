//! A consumer whose `group_instance_id` the group has given to somebody else (`FencedInstanceId`) is of no more use to
//! librdkafka. Mostly that somebody is us: after a broker's restart, a commit that was queued before it is sent again
//! under the member id from before we joined anew. So the group is joined once more with a new consumer, going on behind
//! what was handed over. If it is fenced again soon, another process uses the id, and the two would take turns for
//! ever: then the feed ends and says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event::Partition;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tracing::warn;

use super::config::creation_error;
use super::context::Context;
use super::standing::PATIENCE;
use super::watch::Watch;
use super::{KafkaConfig, KafkaFeed};
use crate::SourceError;

/// Being fenced again within this is another process's doing.
const AGAIN: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Membership {
    fenced: Option<Instant>,
    /// The consumer cannot be used any more.
    pub over: bool,
    /// What was ours: until something is again, it holds the watermark.
    waits_for: Vec<Partition>,
}

impl Membership {
    /// Whether `error` is one after which joining again is worth trying.
    pub fn heed(&mut self, error: &KafkaError) -> bool {
        let fenced = matches!(error, KafkaError::MessageConsumptionFatal(Code::FencedInstanceId));
        if !fenced || self.fenced.is_some_and(|at| at.elapsed() < AGAIN) {
            return false;
        }
        self.fenced = Some(Instant::now());
        self.over = true;
        true
    }

    pub fn waits_for(&self) -> &[Partition] {
        let waits = self.fenced.is_some_and(|at| at.elapsed() < PATIENCE);
        if waits { &self.waits_for } else { &[] }
    }
}

/// A consumer that has yet to subscribe.
pub(super) fn consumer(config: &KafkaConfig, context: Context) -> Result<Arc<BaseConsumer<Context>>, SourceError> {
    config.client().create_with_context(context).map(Arc::new).map_err(creation_error)
}

impl KafkaFeed {
    /// Asks the group for partitions.
    pub(super) fn join(&mut self) -> Result<(), SourceError> {
        let names: Vec<&str> = self.topics.keys().map(|name| &**name).collect();
        self.consumer.subscribe(&names).map_err(|error| SourceError::Kafka(error.to_string()))?;
        self.watch = Some(Watch::start(self.consumer.clone(), self.topics.keys().cloned().collect())?);
        Ok(())
    }

    /// With a new consumer, from where the old one stood.
    pub(super) fn join_again(&mut self) -> Result<(), SourceError> {
        self.membership.over = false;
        warn!("kafka: the group has given our `instance` to another member: joining again, once");
        metrics::counter!("stakeout_source_rejoins_total").increment(1);
        self.watch = None;
        let context = {
            let mut old = self.consumer.context().state();
            self.membership.waits_for = std::mem::take(&mut old.assigned).into_keys().collect();
            Context::new(std::mem::take(&mut old.cursor), old.paused)
        };
        self.consumer = consumer(&self.config, context)?;
        self.join()
    }
}
