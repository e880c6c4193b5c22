//! Members that come and go, partitions that are added, a pipeline that has no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use event::Positions;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use source::{Feed, KafkaFeed};

use super::feed::{Kept, config, produce, shown};
use super::{Broker, wait_until};

/// A member of the group that is not Stakeout: reads and throws away. It commits nothing: what another program
/// commits for a partition that this data directory never read is where reading it would begin.
pub struct Foreign {
    stop: Arc<AtomicBool>,
    assigned: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Foreign {
    pub fn join(broker: &Broker, group: &str, topics: &[&str], strategy: &str) -> Foreign {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap())
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", strategy)
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .create()
            .unwrap();
        consumer.subscribe(topics).unwrap();
        let (stop, assigned) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = {
            let (stop, assigned) = (stop.clone(), assigned.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    drop(consumer.poll(Duration::from_millis(50)));
                    assigned.store(consumer.assignment().map_or(0, |list| list.count()), Ordering::SeqCst);
                }
            })
        };
        Foreign { stop, assigned, thread: Some(thread) }
    }

    /// Partitions it holds.
    pub fn assigned(&self) -> usize {
        self.assigned.load(Ordering::SeqCst)
    }
}

/// Leaves the group.
impl Drop for Foreign {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().expect("is joined once").join();
    }
}

pub fn added_partitions_are_read(broker: &Broker) {
    broker.create_topic("grows", 1);
    produce(broker, "grows", 1, 0..10);
    let mut config = config(broker, "grows", "grows");
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "500".into());
    let mut kept = Kept::default();
    let mut feed = KafkaFeed::open(&config, Positions::new()).unwrap();
    kept.poll_until(&mut feed, 10);
    broker.grow_topic("grows", 3);
    // Before anybody noticed: what is first in a new partition counts as well.
    produce(broker, "grows", 3, 10..100);
    let came = wait_until("the new partitions are assigned", || {
        let polled = kept.poll(&mut feed);
        (polled.partitions.len() == 3).then_some(polled)
    });
    let new = came.partitions.iter().filter(|state| state.partition > 0);
    assert!(new.clone().count() == 2 && new.clone().all(|state| !state.idle), "holds the watermark: {came:?}");
    kept.poll_until(&mut feed, 100);
    assert_eq!(kept.numbers, (0..100).collect());
}

pub fn a_foreign_member_comes_and_goes(broker: &Broker) {
    for strategy in ["range", "cooperative-sticky"] {
        let topic = format!("foreign-{strategy}");
        broker.create_topic(&topic, 4);
        let mut config = config(broker, &topic, &topic);
        config.properties.insert("partition.assignment.strategy".into(), strategy.into());
        let mut kept = Kept::default();
        let mut feed = KafkaFeed::open(&config, Positions::new()).unwrap();
        produce(broker, &topic, 4, 0..400);
        kept.poll_until(&mut feed, 400);
        let foreign = Foreign::join(broker, &topic, &[&topic], strategy);
        wait_until("the group shares", || {
            let ours = kept.poll(&mut feed).partitions.len();
            (ours == 2 && foreign.assigned() == 2).then_some(())
        });
        let gone = format!("stakeout_source_position{{topic=\"{topic}\"");
        wait_until("the gauges of what was revoked are gone", || {
            kept.poll(&mut feed);
            (shown().matches(&gone).count() == 2).then_some(())
        });
        feed.committed(&kept.offsets).unwrap();
        produce(broker, &topic, 4, 400..800);
        kept.poll_until(&mut feed, 600);
        // Also while nothing of it is committed.
        drop(foreign);
        kept.poll_until(&mut feed, 800);
        assert_eq!(kept.numbers, (0..800).collect(), "{strategy}");
        Box::new(feed).close().unwrap();
    }
}

pub fn a_held_feed_keeps_its_place(broker: &Broker) {
    broker.create_topic("held", 2);
    produce(broker, "held", 2, 0..100);
    let mut config = config(broker, "held", "held");
    for (key, value) in [("session.timeout.ms", "2000"), ("max.poll.interval.ms", "2000")] {
        config.properties.insert(key.into(), value.into());
    }
    let mut kept = Kept::default();
    let mut feed = KafkaFeed::open(&config, Positions::new()).unwrap();
    kept.poll_until(&mut feed, 100);
    let two_intervals = Duration::from_secs(5);

    produce(broker, "held", 2, 100..300);
    let started = Instant::now();
    while started.elapsed() < two_intervals {
        feed.hold(Duration::from_millis(50)).unwrap();
        feed.committed(&kept.offsets).unwrap();
    }
    assert_eq!(members(broker, "held"), 1, "the group kept us");
    kept.poll_until(&mut feed, 300);
    let committed = group_offsets(broker, "held", 2);
    assert_eq!(committed.iter().sum::<i64>(), 100, "what was committed while held");

    // Without it the group would have thrown us out: the hold is what keeps us in.
    std::thread::sleep(two_intervals);
    assert_eq!(members(broker, "held"), 0, "a consumer that does not poll is evicted");
    produce(broker, "held", 2, 300..400);
    kept.poll_until(&mut feed, 400);
}

fn members(broker: &Broker, group: &str) -> usize {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    let list = consumer.fetch_group_list(Some(group), Duration::from_secs(10)).unwrap();
    list.groups().iter().map(|group| group.members().len()).sum()
}

fn group_offsets(broker: &Broker, topic: &str, partitions: i32) -> Vec<i64> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).set("group.id", topic).create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let committed = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
    committed.elements().iter().map(|e| e.offset().to_raw().unwrap()).collect()
}
