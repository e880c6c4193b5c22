//! Everything at once: events flow through a real broker while stakeout is killed at random, the broker restarts, a
//! foreign member joins the group and leaves it, and partitions are added. Every event is stored exactly once.
//!
//! `STAKEOUT_ANGER_EVENTS` (100,000), `STAKEOUT_ANGER_KILLS` (4) and `STAKEOUT_TEST_SEED` change the run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use source::Producer;
use synthetic::{Generator, Options};

use crate::kafka::{Broker, Foreign};
use crate::line::{Produced, START, Setup, TOPICS, create_topics, ends, hash, number, seed, topic_of};
use crate::process::Run;
use crate::stored;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    Kill,
    /// With or without a kill while it is down.
    BrokerRestarts {
        kill: bool,
    },
    ForeignerJoins,
    ForeignerLeaves,
    /// To this topic, up to so many.
    PartitionsAdded(&'static str, i32),
}

#[test]
fn everything_at_once_and_every_event_is_stored_exactly_once() {
    let seed = seed();
    let events = number("STAKEOUT_ANGER_EVENTS", 100_000);
    let kills = number("STAKEOUT_ANGER_KILLS", 4);
    let mut rng = StdRng::seed_from_u64(seed);
    let strategy = ["range", "cooperative-sticky"][rng.random_range(0..2)];
    let blows = blows(&mut rng, kills);
    println!("seed {seed}, {events} events, assignment {strategy}: {blows:?}");
    let mut broker = Broker::start();
    create_topics(&broker);

    let dir = tempfile::tempdir().unwrap();
    let properties = [("partition.assignment.strategy", strategy), ("topic.metadata.refresh.interval.ms", "1000")];
    let setup = Setup::with(dir.path(), "anger", &broker, &properties);
    let allowed = Arc::new(AtomicU64::new(0));
    let producing = produce(broker.bootstrap(), seed, events, allowed.clone());
    let mut run = setup.start();
    let mut foreigner: Option<Foreign> = None;
    let (mut killed, mut hit_midway, mut rows_before) = (0, 0, 0);
    let started = Instant::now();
    for (index, blow) in blows.iter().enumerate() {
        allowed.store(events * (index as u64 + 1) / blows.len() as u64, Ordering::SeqCst);
        // Blows come over the whole stream, not only over its beginning: a tenth is for repeats, which are not stored.
        // What the foreigner holds is not stored until it leaves.
        let share = events * index as u64 / (blows.len() as u64 + 1) * 9 / 10;
        if foreigner.is_none() {
            wait(&mut run, &format!("{share} rows are stored"), || stored::committed(&setup.data).1 >= share);
        }
        let quiet = Duration::from_millis(rng.random_range(300..1_500));
        let since = Instant::now();
        while since.elapsed() < quiet {
            run.assert_running();
            std::thread::sleep(Duration::from_millis(10));
        }
        match *blow {
            Blow::Kill => {
                // Three of four find it at work on something new, one perhaps before it came so far.
                killed += 1;
                if killed % 4 != 0 {
                    wait(&mut run, "it commits something new", || stored::committed(&setup.data).1 > rows_before);
                    std::thread::sleep(Duration::from_millis(rng.random_range(0..1_000)));
                }
                run.kill();
                let (_, rows) = stored::committed(&setup.data);
                hit_midway += u64::from(rows > rows_before && rows < events);
                rows_before = rows;
                println!("{:?}: killed at {rows} rows", started.elapsed());
                run = setup.start();
            }
            Blow::BrokerRestarts { kill } => {
                broker.stop();
                if kill {
                    run.kill();
                    run = setup.start();
                }
                broker.restart();
                println!("{:?}: the broker is back", started.elapsed());
            }
            Blow::ForeignerJoins => {
                let topics = TOPICS.map(|topic| topic.0);
                let member = Foreign::join(&broker, "anger", &topics, strategy);
                wait(&mut run, "the foreigner has partitions", || member.assigned() > 0);
                println!("{:?}: a foreigner reads {} partitions", started.elapsed(), member.assigned());
                foreigner = Some(member);
            }
            Blow::ForeignerLeaves => {
                drop(foreigner.take().expect("it joined before"));
                println!("{:?}: the foreigner is gone", started.elapsed());
            }
            Blow::PartitionsAdded(topic, count) => {
                broker.grow_topic(topic, count);
                println!("{:?}: {topic} has {count} partitions", started.elapsed());
            }
        }
    }
    let hashes = producing.join().unwrap();
    let produced = Produced { hashes, ends: ends(&broker) };
    println!("{:?}: all is produced", started.elapsed());
    assert!(hit_midway * 2 >= kills, "only {hit_midway} of {kills} kills came while there was progress");
    for blow in &blows {
        if let Blow::PartitionsAdded(topic, count) = blow {
            let last = produced.ends[&((*topic).to_owned(), count - 1)];
            assert!(last > 0, "seed {seed}: nothing went to the last new partition of {topic}");
        }
    }
    let patience = Duration::from_secs(120) + Duration::from_millis(events);
    setup.wait_for_the_end(&mut run, &produced, patience);
    run.terminate();
    setup.assert_stored_exactly_once(&produced);
    println!("{:?}: {} events, each stored once", started.elapsed(), produced.hashes.len());
}

/// In any order, but the foreigner leaves after it joined, partitions are added while there are many events to come,
/// and there is one kill with everything behind it.
fn blows(rng: &mut StdRng, kills: u64) -> Vec<Blow> {
    let mut blows = vec![Blow::Kill; kills.saturating_sub(1) as usize];
    blows.push(Blow::BrokerRestarts { kill: rng.random() });
    blows.extend([Blow::ForeignerJoins, Blow::ForeignerLeaves]);
    blows.shuffle(rng);
    for added in [Blow::PartitionsAdded("audit-us", 4), Blow::PartitionsAdded("falco", 3)] {
        blows.insert(rng.random_range(0..=blows.len() / 2), added);
    }
    let at = |blow: Blow, blows: &[Blow]| blows.iter().position(|b| *b == blow).expect("is in it");
    let (joins, leaves) = (at(Blow::ForeignerJoins, &blows), at(Blow::ForeignerLeaves, &blows));
    if leaves < joins {
        blows.swap(joins, leaves);
    }
    blows.push(Blow::Kill);
    blows
}

fn wait(run: &mut Run, what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        run.assert_running();
        assert!(started.elapsed() < Duration::from_secs(180), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sends as many events as are allowed so far, until all are. Returns the hashes of the distinct ones.
fn produce(brokers: String, seed: u64, events: u64, allowed: Arc<AtomicU64>) -> JoinHandle<BTreeSet<[u8; 16]>> {
    std::thread::spawn(move || {
        // New partitions get their share soon.
        let properties = [("topic.metadata.refresh.interval.ms".to_owned(), "500".to_owned())].into();
        let producer = Producer::new(&brokers, &properties).unwrap();
        let stream = Options { seed, start: START, gap: 4_000, attack_every: events / 25, ..Options::default() };
        let mut hashes = BTreeSet::new();
        for (sent, event) in (0..events).zip(Generator::new(stream)) {
            while sent >= allowed.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            hashes.insert(hash(&event.bytes));
            producer.send(topic_of(&event), None, &event.bytes).unwrap();
        }
        producer.flush().unwrap();
        hashes
    })
}
