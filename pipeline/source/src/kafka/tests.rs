//! What is hard to bring about with a real broker, against librdkafka's own mock of one.

use rdkafka::ClientConfig;
use rdkafka::consumer::DefaultConsumerContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::TopicMapping;

type Mock = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> Mock {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("audit", partitions, 1).unwrap();
    mock
}

fn config(mock: &Mock) -> KafkaConfig {
    KafkaConfig {
        brokers: mock.bootstrap_servers(),
        group_id: "stakeout".into(),
        group_instance_id: None,
        topics: vec![TopicMapping {
            topic: "audit".into(),
            source: event::Source::Falco,
            cluster: Some("prod".into()),
            cluster_header: None,
        }],
        properties: [("heartbeat.interval.ms", "200")].map(|(key, value)| (key.into(), value.into())).into(),
        idle_after: KafkaConfig::IDLE_AFTER,
        stall_after: Duration::from_secs(1),
    }
}

fn produce(mock: &Mock, count: usize, partition: i32) {
    let producer = Producer::new(&mock.bootstrap_servers(), &BTreeMap::new()).unwrap();
    (0..count).for_each(|_| producer.send("audit", Some(partition), b"x").unwrap());
    producer.flush().unwrap();
}

/// Polls until there is an answer; counts what comes.
fn poll_until<T>(feed: &mut KafkaFeed, what: &str, mut ask: impl FnMut(Result<Polled, SourceError>) -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask(feed.poll(Duration::from_millis(100))) {
            return answer;
        }
        // A member that is dead is believed to live for most of a minute.
        assert!(started.elapsed() < Duration::from_secs(180), "waited in vain until {what}");
    }
}

fn read(feed: &mut KafkaFeed, count: usize) {
    let mut got = 0;
    poll_until(feed, "the messages arrive", |polled| {
        got += polled.unwrap().messages.len();
        (got >= count).then_some(())
    });
    assert_eq!(got, count);
}

#[test]
fn a_partition_that_stands_still_is_moved_on() {
    let mock = cluster(1);
    produce(&mock, 10, 0);
    let mut feed = KafkaFeed::open(&config(&mock), Positions::new()).unwrap();
    read(&mut feed, 10);
    // As if the client had forgotten to fetch: paused, and nobody knows.
    let list = feed.consumer.context().positions(&[("audit".into(), 0)]).unwrap();
    feed.consumer.pause(&list).unwrap();
    produce(&mock, 10, 0);
    read(&mut feed, 10);
    assert!(!feed.consumer.context().state().assigned.values().any(|assigned| assigned.progress.stalled()));
}

#[test]
fn a_partition_that_nothing_moves_ends_the_feed() {
    let mock = cluster(1);
    produce(&mock, 10, 0);
    let mut feed = KafkaFeed::open(&config(&mock), Positions::new()).unwrap();
    read(&mut feed, 10);
    mock.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR; 1000]);
    produce(&mock, 1, 0);
    let error = poll_until(&mut feed, "the feed gives up", Result::err).to_string();
    assert!(error.starts_with("kafka: audit/0 has something to read and stands still at 10"), "{error}");
}

/// A member that holds a partition and commits nothing, while there is something to read.
#[test]
fn a_partition_that_another_member_does_not_read_holds_the_watermark() {
    let mock = cluster(2);
    let mut feed = KafkaFeed::open(&config(&mock), Positions::new()).unwrap();
    feed.attended = Duration::from_millis(500);
    poll_until(&mut feed, "both are ours", |polled| (polled.unwrap().partitions.len() == 2).then_some(()));
    let other: BaseConsumer<DefaultConsumerContext> = ClientConfig::new()
        .set("bootstrap.servers", mock.bootstrap_servers())
        .set("group.id", "stakeout")
        .set("enable.auto.commit", "false")
        .set("heartbeat.interval.ms", "200")
        .create()
        .unwrap();
    other.subscribe(&["audit"]).unwrap();
    // What the feed tells is no sign: it may hold the other's partition at once.
    let ours = poll_until(&mut feed, "one is the other's", |polled| {
        drop(other.poll(Duration::ZERO));
        drop(polled.unwrap());
        let theirs = other.assignment().unwrap();
        (theirs.count() == 1).then(|| 1 - theirs.elements()[0].partition())
    });
    produce(&mock, 5, 1 - ours);
    let held = poll_until(&mut feed, "it holds", |polled| {
        drop(other.poll(Duration::ZERO));
        polled.unwrap().partitions.into_iter().find(|state| state.partition != ours)
    });
    assert!(held.lag.is_none() && !held.idle, "{held:?}");
    // Read and committed by the other: nothing to wait for.
    let mut done = TopicPartitionList::new();
    done.add_partition_offset("audit", 1 - ours, Offset::Offset(5)).unwrap();
    other.commit(&done, CommitMode::Sync).unwrap();
    poll_until(&mut feed, "it lets go", |polled| (polled.unwrap().partitions.len() == 1).then_some(()));
}

#[test]
fn what_cannot_be_unpacked_ends_the_feed_and_says_what_could_be() {
    let mock = cluster(1);
    let feed = KafkaFeed::open(&config(&mock), Positions::new()).unwrap();
    use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
    for code in [Code::BadCompression, Code::NotImplemented] {
        let error = feed.judge(KafkaError::MessageConsumption(code)).unwrap_err().to_string();
        assert!(error.starts_with("kafka: a batch of records cannot be read"), "{error}");
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            assert!(error.contains(codec), "{error}");
        }
    }
    assert!(feed.judge(KafkaError::MessageConsumption(Code::BadMessage)).is_err());
    assert!(feed.judge(KafkaError::MessageConsumption(Code::BrokerTransportFailure)).is_ok());
    let fenced = feed.judge(KafkaError::MessageConsumptionFatal(Code::FencedInstanceId)).unwrap_err().to_string();
    assert!(fenced.contains("the same `instance`"), "{fenced}");
}

/// Refuses the next heartbeat of a static member as the group does when its id was given to another.
fn fence(mock: &Mock) {
    mock.request_errors(RDKafkaApiKey::Heartbeat, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID]);
}

#[test]
fn a_member_that_is_fenced_joins_again_and_goes_on_where_it_stood() {
    for holding in [false, true] {
        let mock = cluster(1);
        let mut config = KafkaConfig { group_instance_id: Some("one".into()), ..config(&mock) };
        // The mock keeps the member that was fenced for so long.
        config.properties.insert("session.timeout.ms".into(), "3000".into());
        let mut feed = KafkaFeed::open(&config, Positions::new()).unwrap();
        produce(&mock, 10, 0);
        read(&mut feed, 10);
        let first = Arc::as_ptr(&feed.consumer);
        fence(&mock);
        let started = Instant::now();
        while Arc::as_ptr(&feed.consumer) == first {
            assert!(started.elapsed() < Duration::from_secs(60), "not fenced");
            if holding {
                feed.hold(Duration::from_millis(50)).unwrap();
            } else {
                let polled = feed.poll(Duration::from_millis(50)).unwrap();
                assert!(polled.messages.is_empty());
                assert_eq!(polled.partitions.len(), 1, "what was ours holds the watermark until it is again");
            }
        }
        // Paused or not, as before.
        produce(&mock, 5, 0);
        read(&mut feed, 5);
        feed.committed(&Offsets(Positions::from([(("audit".into(), 0), 15)]))).unwrap();
        poll_until(&mut feed, "it is told by the new consumer", |polled| {
            polled.unwrap();
            committed(&mock).filter(|told| *told == 15)
        });

        fence(&mock);
        let error = poll_until(&mut feed, "it gives up", Result::err).to_string();
        assert!(error.contains("another process uses the same `instance`"), "{error}");
        Box::new(feed).close().unwrap();
    }
}

/// What the group has committed of the one partition.
fn committed(mock: &Mock) -> Option<i64> {
    let asking: BaseConsumer<DefaultConsumerContext> = ClientConfig::new()
        .set("bootstrap.servers", mock.bootstrap_servers())
        .set("group.id", "stakeout")
        .create()
        .unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition("audit", 0);
    let answer = asking.committed_offsets(asked, Duration::from_secs(5)).unwrap();
    answer.elements()[0].offset().to_raw()
}
