//! The producer as receivers use it: many records at a time, each with its own acknowledgement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use event::Positions;
use source::{Acknowledge, KafkaFeed, Producer, SourceError};

use super::Broker;
use super::feed::{Kept, config};

type Answer = (usize, Result<(), SourceError>);

fn tell(answers: &Sender<Answer>, number: usize) -> Acknowledge {
    let answers = answers.clone();
    Box::new(move |result| answers.send((number, result)).unwrap())
}

pub fn records_are_acknowledged_one_by_one(broker: &Broker) {
    broker.create_topic("acked", 2);
    let producer = Producer::new(&broker.bootstrap(), &BTreeMap::new()).unwrap();
    let (answers, answered) = channel();
    let cluster: (&str, &[u8]) = (source::CLUSTER_HEADER, b"prod");
    for number in 0..1000 {
        producer.send_acked("acked", &[cluster], number.to_string().as_bytes(), tell(&answers, number)).unwrap();
    }
    drop(answers);
    let mut all: Vec<usize> = answered.into_iter().map(|(number, result)| result.map(|()| number).unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
    // Acknowledged means there: nothing was flushed.
    let mut config = config(broker, "acked", "acked");
    config.topics[0].cluster = None;
    config.topics[0].cluster_header = Some(source::CLUSTER_HEADER.to_owned());
    let mut kept = Kept::default();
    kept.poll_until(&mut KafkaFeed::open(&config, Positions::new()).unwrap(), 1000);
}

pub fn what_is_too_large_is_said(broker: &Broker) {
    broker.create_topic_with("small", 1, &[("max.message.bytes", "10000")]);
    let producer = Producer::new(&broker.bootstrap(), &BTreeMap::new()).unwrap();
    let (answers, answered) = channel();
    // One after the other: the broker refuses a batch as a whole.
    producer.send_acked("small", &[], &[b'x'; 20_000], tell(&answers, 0)).unwrap();
    let (_, refused) = answered.recv().unwrap();
    assert!(matches!(refused, Err(SourceError::TooLarge { bytes: 20_000, .. })), "{refused:?}");
    producer.send_acked("small", &[], b"fits", tell(&answers, 1)).unwrap();
    assert!(answered.recv().unwrap().1.is_ok());
    // Larger than anything: refused before it is queued.
    let (answers, _) = channel();
    let error = producer.send_acked("small", &[], &vec![b'x'; 65 << 20], tell(&answers, 2)).unwrap_err();
    assert!(matches!(error, SourceError::TooLarge { .. }), "{error}");
}

/// Nobody listens where it sends to.
#[test]
fn a_full_queue_is_busy_and_nobody_waits_for_ever() {
    let settings = [("queue.buffering.max.messages", "10"), ("message.timeout.ms", "300000")];
    let properties = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let producer = Producer::new("127.0.0.1:1", &properties).unwrap();
    let (given_up, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    for _ in 0..25 {
        let counter = given_up.clone();
        let done: Acknowledge = Box::new(move |result| {
            assert!(result.is_err());
            counter.fetch_add(1, Ordering::SeqCst);
        });
        match producer.send_acked("audit", &[], b"x", done) {
            Ok(()) => {}
            Err(SourceError::Busy) => drop(refused.fetch_add(1, Ordering::SeqCst)),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5), "it does not wait");
    assert_eq!((given_up.load(Ordering::SeqCst), refused.load(Ordering::SeqCst)), (0, 15));
    drop(producer);
    assert_eq!(given_up.load(Ordering::SeqCst), 10, "those in the queue are told");
}
