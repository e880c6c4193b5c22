//! What real topics hold besides well-behaved records.

use std::time::{Duration, Instant};

use event::{Message, Offsets, Positions, Source};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use source::{Feed, KafkaFeed, TopicMapping};

use super::feed::{Kept, config, produce, shown};
use super::{Broker, wait_until};

fn plain(broker: &Broker, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap());
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// All of the topic up to its end, with ranges that continue.
fn read_to(feed: &mut dyn Feed, end: i64) -> Vec<Message> {
    let (mut messages, mut offsets) = (Vec::new(), Offsets::default());
    wait_until(&format!("offset {end} is reached"), || {
        let polled = feed.poll(Duration::from_millis(200)).unwrap();
        offsets.advance(&polled.ranges).unwrap();
        messages.extend(polled.messages);
        offsets.0.values().any(|at| *at >= end).then_some(())
    });
    messages
}

pub fn odd_records_come_through(broker: &Broker) {
    const HUGE: usize = 20 << 20;
    broker.create_topic_with("odd", 1, &[("max.message.bytes", "26214400"), ("cleanup.policy", "compact")]);
    let producer = plain(broker, &[("message.max.bytes", "26214400")]);
    let huge = vec![b'h'; HUGE];
    let payloads: [Option<&[u8]>; 6] = [Some(b"first"), None, Some(b""), Some(&huge), Some(b"\0\xff"), Some(b"last")];
    for payload in payloads {
        // A compacted topic wants keys.
        let mut record = BaseRecord::to("odd").key("k");
        record.payload = payload;
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
    }
    let mut feed = KafkaFeed::open(&config(broker, "odd", "odd"), Positions::new()).unwrap();
    let messages = read_to(&mut feed, 6);
    let got: Vec<(i64, &[u8])> = messages.iter().map(|m| (m.offset, &*m.bytes)).collect();
    // The tombstone is covered by the range and holds no event; an empty value is one, if a strange one.
    assert_eq!(got.len(), 5);
    assert_eq!(got[0], (0, &b"first"[..]));
    assert_eq!(got[1], (2, &b""[..]));
    assert!(got[2].0 == 3 && got[2].1 == huge, "20 MiB in one record");
    assert_eq!(got[3..], [(4, &b"\0\xff"[..]), (5, &b"last"[..])]);
}

pub fn every_codec_is_read(broker: &Broker) {
    broker.create_topic("codecs", 1);
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (index, codec) in codecs.iter().enumerate() {
        let producer = plain(broker, &[("compression.codec", codec), ("linger.ms", "50")]);
        for number in 0..100 {
            let payload = format!("{}", index * 100 + number);
            producer.send(BaseRecord::<(), str>::to("codecs").payload(&payload)).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }
    let mut kept = Kept::default();
    let mut feed = KafkaFeed::open(&config(broker, "codecs", "codecs"), Positions::new()).unwrap();
    kept.poll_until(&mut feed, 100 * codecs.len());
}

pub fn headers_name_the_cluster(broker: &Broker) {
    broker.create_topic("headers", 1);
    let producer = plain(broker, &[]);
    type Headers = &'static [(&'static str, &'static [u8])];
    let cases: [(Headers, Option<&str>); 5] = [
        (&[("stakeout-cluster", b"prod-eu")], Some("prod-eu")),
        (&[("other", b"x")], Some("rest")),
        (&[], Some("rest")),
        (&[("stakeout-cluster", b"first"), ("stakeout-cluster", b"last")], Some("last")),
        (&[("stakeout-cluster", b"\xff")], None),
    ];
    for (headers, _) in cases {
        let insert = |all: OwnedHeaders, (key, value): &(&str, &[u8])| all.insert(Header { key, value: Some(*value) });
        let headers = headers.iter().fold(OwnedHeaders::new(), insert);
        producer
            .send(BaseRecord::<(), str>::to("headers").payload("x").headers(headers))
            .map_err(|(error, _)| error)
            .unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    for (group, fallback) in [("headers-rest", Some("rest")), ("headers-none", None)] {
        let mut config = config(broker, "headers", group);
        config.topics[0].cluster = fallback.map(str::to_owned);
        config.topics[0].cluster_header = Some(source::CLUSTER_HEADER.to_owned());
        let mut feed = KafkaFeed::open(&config, Positions::new()).unwrap();
        let messages = read_to(&mut feed, cases.len() as i64);
        for (message, (_, cluster)) in messages.iter().zip(cases) {
            let expected = if cluster == Some("rest") { fallback } else { cluster };
            assert_eq!(message.cluster.as_deref(), expected, "offset {}", message.offset);
        }
    }
}

pub fn a_deleted_topic_does_not_stop_the_others(broker: &Broker) {
    broker.create_topic("stays", 1);
    broker.create_topic("goes", 2);
    produce(broker, "stays", 1, 0..10);
    produce(broker, "goes", 2, 10..20);
    let mut config = config(broker, "stays", "deleted");
    config.topics.push(TopicMapping { topic: "goes".into(), ..config.topics[0].clone() });
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "500".into());
    let mut kept = Kept::default();
    let mut feed = KafkaFeed::open(&config, Positions::new()).unwrap();
    kept.poll_until(&mut feed, 20);
    broker.delete_topic("goes");
    wait_until("the topic is missed", || {
        kept.poll(&mut feed);
        feed.committed(&kept.offsets).unwrap();
        shown().contains("stakeout_source_topic_missing{topic=\"goes\"} 1\n").then_some(())
    });
    produce(broker, "stays", 1, 20..30);
    kept.poll_until(&mut feed, 30);
    // For a while more, so that whatever the client says of the topic has been judged.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        kept.poll(&mut feed);
    }
    assert!(!shown().contains("stakeout_source_topic_missing{topic=\"stays\"}"));
    drop(feed);

    // A start with a topic that was read before and is gone is as good; one that never was is named.
    let mut feed = KafkaFeed::open(&config, kept.offsets.0.clone()).unwrap();
    produce(broker, "stays", 1, 30..40);
    kept.poll_until(&mut feed, 40);
    config.topics.push(TopicMapping { topic: "never".into(), source: Source::Falco, ..config.topics[0].clone() });
    let error = KafkaFeed::open(&config, kept.offsets.0.clone()).err().unwrap().to_string();
    assert!(error.starts_with("kafka has no topic `never`, or"), "{error}");
}
