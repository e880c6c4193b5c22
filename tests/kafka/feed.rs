//! The Kafka feed against a real broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::{Offsets, Polled, Positions, Source};
use rdkafka::admin::AdminOptions;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use source::{Feed, KafkaConfig, KafkaFeed, Producer, SourceError, TopicMapping};

use super::{Broker, block_on, group, odd, producer, wait_until};

pub fn config(broker: &Broker, topic: &str, group: &str) -> KafkaConfig {
    KafkaConfig {
        brokers: broker.bootstrap(),
        group_id: group.into(),
        group_instance_id: None,
        topics: vec![TopicMapping {
            topic: topic.into(),
            source: Source::Kubernetes,
            cluster: Some("prod".into()),
            cluster_header: None,
        }],
        properties: [
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "500"),
            ("reconnect.backoff.max.ms", "1000"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        idle_after: Duration::from_secs(1),
        stall_after: KafkaConfig::STALL_AFTER,
    }
}

pub fn produce(broker: &Broker, topic: &str, partitions: i32, numbers: std::ops::Range<usize>) {
    let producer = Producer::new(&broker.bootstrap(), &BTreeMap::new()).unwrap();
    for number in numbers {
        producer.send(topic, Some(number as i32 % partitions), number.to_string().as_bytes()).unwrap();
    }
    producer.flush().unwrap();
}

/// What `/metrics` would show.
pub fn shown() -> String {
    let metrics = stakeout::telemetry::metrics();
    stakeout::telemetry::render(&metrics)
}

/// What a pipeline keeps of a feed, with its checks: every number once, ranges that continue.
#[derive(Default)]
pub struct Kept {
    pub numbers: BTreeSet<usize>,
    pub offsets: Offsets,
}

impl Kept {
    pub fn poll(&mut self, feed: &mut dyn Feed) -> Polled {
        let polled = feed.poll(Duration::from_millis(200)).unwrap();
        for message in &polled.messages {
            let number = std::str::from_utf8(&message.bytes).unwrap().parse().unwrap();
            assert!(self.numbers.insert(number), "{number} was handed over twice");
            assert_eq!((message.source, message.cluster.as_deref()), (Source::Kubernetes, Some("prod")));
        }
        self.offsets.advance(&polled.ranges).unwrap();
        polled
    }

    pub fn poll_until(&mut self, feed: &mut dyn Feed, count: usize) {
        wait_until(&format!("{count} messages arrive"), || {
            self.poll(feed);
            (self.numbers.len() >= count).then_some(())
        });
    }
}

#[test]
fn kafka_feed() {
    shown();
    let broker = Broker::start();
    type Scenario = (&'static str, fn(&Broker));
    let scenarios: [Scenario; 15] = [
        ("resumes where the manifest stands", resumes_where_the_manifest_stands),
        ("a partition comes and goes", a_partition_comes_and_goes),
        ("what retention removed is skipped loudly", what_retention_removed_is_skipped_loudly),
        ("a topic made anew is an error", a_topic_made_anew_is_an_error),
        ("unknown topics are named", unknown_topics_are_named),
        ("markers at the end are no lag", markers_at_the_end_are_no_lag),
        ("added partitions are read", group::added_partitions_are_read),
        ("a foreign member comes and goes", group::a_foreign_member_comes_and_goes),
        ("a held feed keeps its place", group::a_held_feed_keeps_its_place),
        ("a deleted topic does not stop the others", odd::a_deleted_topic_does_not_stop_the_others),
        ("odd records come through", odd::odd_records_come_through),
        ("every codec is read", odd::every_codec_is_read),
        ("headers name the cluster", odd::headers_name_the_cluster),
        ("records are acknowledged one by one", producer::records_are_acknowledged_one_by_one),
        ("what is too large is said", producer::what_is_too_large_is_said),
    ];
    // They mostly wait, each on a topic and a group of its own.
    std::thread::scope(|scope| {
        for (name, scenario) in scenarios {
            let broker = &broker;
            let run = move || {
                let started = Instant::now();
                scenario(broker);
                println!("{name}: {:?}", started.elapsed());
            };
            std::thread::Builder::new().name(name.into()).spawn_scoped(scope, run).unwrap();
        }
    });
}

fn resumes_where_the_manifest_stands(broker: &Broker) {
    broker.create_topic("resume", 3);
    produce(broker, "resume", 3, 0..3000);
    let config = config(broker, "resume", "resume");
    let mut kept = Kept::default();
    let mut feed = Box::new(KafkaFeed::open(&config, Positions::new()).unwrap());
    kept.poll_until(&mut *feed, 1000);
    let manifest = (kept.numbers.clone(), kept.offsets.clone());
    // More is handed over than is committed: a crash would lose it from memory.
    kept.poll_until(&mut *feed, 3000);
    feed.committed(&manifest.1).unwrap();
    feed.close().unwrap();

    produce(broker, "resume", 3, 3000..5000);
    let mut kept = Kept { numbers: manifest.0, offsets: manifest.1.clone() };
    let mut feed = Box::new(KafkaFeed::open(&config, manifest.1.0).unwrap());
    kept.poll_until(&mut *feed, 5000);
    assert_eq!(kept.numbers, (0..5000).collect());
    let idle = wait_until("every partition is idle", || {
        let polled = kept.poll(&mut *feed);
        let idle = polled.partitions.iter().all(|p| p.idle && p.lag == Some(0));
        (idle && polled.partitions.len() == 3).then_some(polled)
    });
    assert!(idle.messages.is_empty());
    feed.committed(&kept.offsets).unwrap();
    feed.close().unwrap();

    // Another data directory begins where the group stands.
    produce(broker, "resume", 3, 5000..5003);
    let mut other = Kept::default();
    let mut feed = Box::new(KafkaFeed::open(&config, Positions::new()).unwrap());
    other.poll_until(&mut *feed, 3);
    assert_eq!(other.numbers, (5000..5003).collect());
    feed.close().unwrap();
}

fn a_partition_comes_and_goes(broker: &Broker) {
    for (group, strategy) in [("eager", "range"), ("cooperative", "cooperative-sticky")] {
        broker.create_topic(group, 4);
        produce(broker, group, 4, 0..400);
        let mut config = config(broker, group, group);
        config.properties.insert("partition.assignment.strategy".into(), strategy.into());
        let mut first = (KafkaFeed::open(&config, Positions::new()).unwrap(), Kept::default());
        first.1.poll_until(&mut first.0, 400);
        // Half of it is committed; the rest is still being sealed when the partitions are taken away.
        let sealed: Positions = first.1.offsets.0.iter().map(|(p, at)| (p.clone(), at / 2)).collect();
        first.0.committed(&Offsets(sealed)).unwrap();

        let mut second = (KafkaFeed::open(&config, Positions::new()).unwrap(), Kept::default());
        wait_until("the group shares", || {
            let mine = first.1.poll(&mut first.0).partitions.len();
            let yours = second.1.poll(&mut second.0).partitions.len();
            (mine == 2 && yours == 2).then_some(())
        });
        produce(broker, group, 4, 400..800);
        wait_until("all new messages arrive at one or the other", || {
            first.1.poll(&mut first.0);
            second.1.poll(&mut second.0);
            let all = first.1.numbers.union(&second.1.numbers).count();
            (all == 800).then_some(())
        });
        assert_eq!(first.1.numbers.iter().filter(|n| **n >= 400).count(), 200, "{group}: two of four partitions");
        Box::new(second.0).close().unwrap();
        // What the other read meanwhile comes again, so that this data directory's ranges continue.
        first.1.poll_until(&mut first.0, 800);
        assert_eq!(first.1.numbers, (0..800).collect(), "{group}");
        Box::new(first.0).close().unwrap();
    }
}

fn what_retention_removed_is_skipped_loudly(broker: &Broker) {
    for strategy in ["range", "cooperative-sticky"] {
        let topic = format!("retention-{strategy}");
        broker.create_topic(&topic, 1);
        produce(broker, &topic, 1, 0..100);
        let mut removed = TopicPartitionList::new();
        removed.add_partition_offset(&topic, 0, Offset::Offset(60)).unwrap();
        block_on(broker.admin().delete_records(&removed, &AdminOptions::new())).unwrap();
        let positions: Positions = [((topic.as_str().into(), 0), 20)].into();
        let mut config = config(broker, &topic, &topic);
        config.properties.insert("partition.assignment.strategy".into(), strategy.into());
        let mut kept = Kept { offsets: Offsets(positions.clone()), ..Kept::default() };
        let mut feed = KafkaFeed::open(&config, positions).unwrap();
        kept.poll_until(&mut feed, 40);
        assert_eq!(kept.numbers, (60..100).collect());
        assert_eq!(kept.offsets.next(&topic, 0), Some(100), "the range covers what is lost");
        let lost = format!("stakeout_source_lost_records_total{{topic=\"{topic}\",partition=\"0\"}} 40\n");
        assert!(shown().contains(&lost), "{}", shown());
    }
}

fn a_topic_made_anew_is_an_error(broker: &Broker) {
    broker.create_topic("anew", 1);
    produce(broker, "anew", 1, 0..10);
    let positions: Positions = [(("anew".into(), 0), 5000)].into();
    let mut feed = KafkaFeed::open(&config(broker, "anew", "anew"), positions).unwrap();
    let error = wait_until("the position is refused", || feed.poll(Duration::from_millis(200)).err());
    assert!(matches!(error, SourceError::Lost { ours: 5000, low: 0, high: 10, .. }), "{error}");
}

fn unknown_topics_are_named(broker: &Broker) {
    let error = KafkaFeed::open(&config(broker, "typo", "typo"), Positions::new()).err().unwrap().to_string();
    assert!(error.starts_with("kafka has no topic `typo`"), "{error}");
    // By default a producer believes for 30 s that the topic is about to be made.
    let impatient = [("topic.metadata.propagation.max.ms".to_owned(), "1000".to_owned())].into();
    let producer = Producer::new(&broker.bootstrap(), &impatient).unwrap();
    producer.send("typo", None, b"x").unwrap();
    assert!(producer.flush().unwrap_err().to_string().contains("not delivered"));
}

fn markers_at_the_end_are_no_lag(broker: &Broker) {
    broker.create_topic("transactions", 1);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).set("transactional.id", "t").create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    for (number, commits) in [(0, true), (1, false), (2, true)] {
        producer.begin_transaction().unwrap();
        let payload = number.to_string();
        producer.send(BaseRecord::<(), str>::to("transactions").payload(&payload)).unwrap();
        if commits {
            producer.commit_transaction(Duration::from_secs(30)).unwrap();
        } else {
            producer.flush(Duration::from_secs(30)).unwrap();
            producer.abort_transaction(Duration::from_secs(30)).unwrap();
        }
    }
    let mut kept = Kept::default();
    let mut feed = KafkaFeed::open(&config(broker, "transactions", "transactions"), Positions::new()).unwrap();
    kept.poll_until(&mut feed, 2);
    assert_eq!(kept.numbers, [0, 2].into());
    wait_until("the partition is idle", || kept.poll(&mut feed).partitions.iter().any(|p| p.idle).then_some(()));
}

#[test]
fn kafka_feed_outlives_the_broker() {
    let mut broker = Broker::start();
    broker.create_topic("audit", 2);
    produce(&broker, "audit", 2, 0..100);
    let mut kept = Kept::default();
    let mut feed = KafkaFeed::open(&config(&broker, "audit", "audit"), Positions::new()).unwrap();
    kept.poll_until(&mut feed, 100);
    broker.stop();
    // One more comes while nobody answers: it waits for the broker as the other does.
    let mut late = Kept::default();
    let opening = {
        let config = config(&broker, "audit", "late");
        std::thread::spawn(move || KafkaFeed::open(&config, Positions::new()).unwrap())
    };
    let down = Instant::now();
    while down.elapsed() < Duration::from_secs(4) || !opening.is_finished() {
        kept.poll(&mut feed);
    }
    let mut late_feed = opening.join().unwrap();
    assert!(late.poll(&mut late_feed).messages.is_empty());
    broker.restart();
    produce(&broker, "audit", 2, 100..200);
    kept.poll_until(&mut feed, 200);
    late.poll_until(&mut late_feed, 200);
    assert_eq!(kept.numbers, (0..200).collect());
    assert_eq!(late.numbers, (0..200).collect());
}

/// `cargo test --test it kafka_feed_speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn kafka_feed_speed() {
    let broker = Broker::start();
    broker.create_topic("speed", 4);
    let producer = Producer::new(&broker.bootstrap(), &BTreeMap::new()).unwrap();
    let payload: Arc<[u8]> = vec![b'x'; 1500].into();
    const COUNT: usize = 300_000;
    let started = Instant::now();
    for number in 0..COUNT {
        producer.send("speed", Some(number as i32 % 4), &payload).unwrap();
    }
    producer.flush().unwrap();
    println!("produced {COUNT} x 1500 bytes in {:?}", started.elapsed());
    let mut feed = KafkaFeed::open(&config(&broker, "speed", "speed"), Positions::new()).unwrap();
    let (mut count, mut polls, mut started) = (0, 0, Instant::now());
    while count < COUNT {
        let got = feed.poll(Duration::from_millis(200)).unwrap().messages.len();
        if count == 0 {
            started = Instant::now();
        }
        count += got;
        polls += 1;
    }
    println!("polled {count} in {:?}, {polls} polls", started.elapsed());
}
