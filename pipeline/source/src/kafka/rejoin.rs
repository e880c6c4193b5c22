//! A consumer whose `group_instance_id` the group has given to somebody else (`FencedInstanceId`) is of no more use to
//! librdkafka. Mostly that somebody is us: after a broker's restart, a commit that was queued before it is sent again
//! under the member id from before we joined anew. So the group is joined once more with a new consumer, going on behind
//! what was handed over. If it is fenced again soon, another process uses the id, and the two would take turns for
//! ever: then the feed ends and says so.

use std::time::{Duration, Instant};

use event::Partition;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tracing::warn;

use super::KafkaFeed;
use super::context::{Context, State};
use super::standing::PATIENCE;
use crate::SourceError;

/// Being fenced again within this is another process's doing.
const AGAIN: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Membership {
    fenced: Option<Instant>,
    /// The consumer cannot be used any more.
    pub over: bool,
    /// What was ours: until it is again, it holds the watermark.
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

impl KafkaFeed {
    /// With a new consumer, from where the old one stood.
    pub(super) fn join_again(&mut self) -> Result<(), SourceError> {
        self.membership.over = false;
        warn!("kafka: the group has given our `instance` to another member: joining again, once");
        metrics::counter!("stakeout_source_rejoins_total").increment(1);
        self.watch = None;
        let context = {
            let old = std::mem::take(&mut *self.consumer.context().state());
            self.membership.waits_for = old.assigned.into_keys().collect();
            let State { cursor, foreign, paused, .. } = old;
            Context::new(State { cursor, foreign, paused, ..State::default() })
        };
        self.consumer = self.config.consumer(context)?;
        self.join()
    }
}
