//! The line against a real Kafka broker, killed at random: every event is stored exactly once, offsets are
//! consistent, findings are those of an uninterrupted run, and every page is sent, none again once acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use source::Producer;
use synthetic::{Generator, Options};

use crate::kafka::Broker;
use crate::line::{Produced, START, Setup, create_topics, ends, hash, number, seed, topic_of};
use crate::stored;

const FIRST_COMMIT_MAX: Duration = Duration::from_secs(60);

#[test]
fn killed_twenty_times_nothing_is_lost_and_nothing_is_doubled() {
    let seed = seed();
    let events = number("STAKEOUT_CRASH_EVENTS", 200_000);
    let kills = number("STAKEOUT_CRASH_KILLS", 20);
    println!("seed {seed}, {events} events, {kills} kills");
    let broker = Broker::start();
    create_topics(&broker);
    let produced = produce(&broker, seed, events);

    let dir = tempfile::tempdir().unwrap();
    let crashed = Setup::new(dir.path(), "crashed", &broker);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut hit_midway = 0;
    for kill in 0..kills {
        let mut run = crashed.start();
        // On a busy machine a life may end before its first commit: every other one waits for what it interrupts.
        let waits = Instant::now();
        while kill % 2 == 1 && stored::committed(&crashed.data).1 == 0 && waits.elapsed() < FIRST_COMMIT_MAX {
            run.assert_running();
            std::thread::sleep(Duration::from_millis(10));
        }
        let lives = Duration::from_millis(rng.random_range(300..2_500));
        let started = Instant::now();
        while started.elapsed() < lives {
            run.assert_running();
            std::thread::sleep(Duration::from_millis(10));
        }
        run.kill();
        let (commits, rows) = stored::committed(&crashed.data);
        hit_midway += u64::from(rows > 0 && rows < produced.hashes.len() as u64);
        println!("killed after {:?}: {rows} rows in {commits} commits", started.elapsed());
    }
    // A quick machine may be done before the last kills; enough must have come while there was work under way.
    assert!(hit_midway * 4 >= kills, "only {hit_midway} of {kills} kills came between the first and the last commit");
    crashed.run_to_the_end(&produced);
    let whole = Setup::new(dir.path(), "whole", &broker);
    whole.run_to_the_end(&produced);

    for setup in [&crashed, &whole] {
        setup.assert_stored_exactly_once(&produced);
    }
    let (found, expected) = (crashed.findings(), whole.findings());
    assert!(!expected.is_empty(), "the stream has attacks in it");
    let missing: Vec<_> = expected.iter().filter(|(id, _)| !found.contains_key(*id)).take(5).collect();
    let added: Vec<_> = found.iter().filter(|(id, _)| !expected.contains_key(*id)).take(5).collect();
    assert!(missing.is_empty() && added.is_empty(), "seed {seed}: missing {missing:#?}\nadded {added:#?}");
    assert_eq!(found, expected, "seed {seed}");
    crashed.assert_every_incident_paged(kills as usize);
    whole.assert_every_incident_paged(0);
    println!("{} findings in both runs, {} events stored", found.len(), produced.hashes.len());
}

fn produce(broker: &Broker, seed: u64, events: u64) -> Produced {
    let producer = Producer::new(&broker.bootstrap(), &BTreeMap::new()).unwrap();
    let mut hashes = BTreeSet::new();
    let stream = Options { seed, start: START, gap: 4_000, attack_every: events / 25, ..Options::default() };
    for event in Generator::new(stream).take(events as usize) {
        hashes.insert(hash(&event.bytes));
        producer.send(topic_of(&event), None, &event.bytes).unwrap();
    }
    producer.flush().unwrap();
    Produced { hashes, ends: ends(broker) }
}
