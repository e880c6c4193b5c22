//! The line against a real Kafka broker, killed at random: every event is stored exactly once, offsets are
//! consistent, findings are those of an uninterrupted run, and every page is sent, none again once acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alert::{Filter, Reader};
use arrow::array::AsArray;
use event::Source;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sha2::{Digest, Sha256};
use source::Producer;
use stakeout::generate::{Generator, Options};
use store::Store;

use crate::kafka::Broker;
use crate::pager::Pager;
use crate::process::{Run, free_port, sample};

const SECOND: i64 = 1_000_000;
/// 2026-01-15T09:00:00Z.
const START: i64 = 1_768_467_600 * SECOND;
const TOPICS: [(&str, Source, Option<&str>, i32); 5] = [
    ("audit-eu", Source::Kubernetes, Some("prod-eu"), 3),
    ("audit-us", Source::Kubernetes, Some("prod-us"), 2),
    ("audit-staging", Source::Kubernetes, Some("staging"), 1),
    ("trail", Source::CloudTrail, None, 3),
    ("falco", Source::Falco, Some("prod-eu"), 1),
];

#[test]
fn killed_twenty_times_nothing_is_lost_and_nothing_is_doubled() {
    let seed = std::env::var("STAKEOUT_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    let events = number("STAKEOUT_CRASH_EVENTS", 200_000);
    let kills = number("STAKEOUT_CRASH_KILLS", 20);
    println!("seed {seed}, {events} events, {kills} kills");
    let broker = Broker::start();
    for (topic, _, _, partitions) in TOPICS {
        broker.create_topic(topic, partitions);
    }
    let produced = produce(&broker, seed, events);

    let dir = tempfile::tempdir().unwrap();
    let crashed = Setup::new(dir.path(), "crashed", &broker);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut hit_midway = 0;
    for _ in 0..kills {
        let mut run = crashed.start();
        let lives = Duration::from_millis(rng.random_range(300..2_500));
        let started = Instant::now();
        while started.elapsed() < lives {
            run.assert_running();
            std::thread::sleep(Duration::from_millis(10));
        }
        run.kill();
        let (commits, rows) = crashed.committed();
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

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// What went into the topics.
struct Produced {
    /// Hashes of distinct elements; repeats are dropped.
    hashes: BTreeSet<[u8; 16]>,
    /// Where each partition ends.
    ends: BTreeMap<(String, i32), i64>,
}

fn produce(broker: &Broker, seed: u64, events: u64) -> Produced {
    let producer = Producer::new(&broker.bootstrap(), &BTreeMap::new()).unwrap();
    let mut hashes = BTreeSet::new();
    let stream = Options { seed, start: START, gap: 4_000, attack_every: events / 25, cloudtrail_delay: 1.0 };
    for event in Generator::new(stream).take(events as usize) {
        let mut hash = [0; 16];
        hash.copy_from_slice(&Sha256::digest(&event.bytes)[..16]);
        hashes.insert(hash);
        let of_source = TOPICS.iter().filter(|t| t.1 == event.source);
        let topic = of_source.clone().find(|t| t.2 == event.cluster).or(of_source.clone().next()).unwrap().0;
        producer.send(topic, None, &event.bytes).unwrap();
    }
    producer.flush().unwrap();
    Produced { hashes, ends: ends(broker) }
}

fn ends(broker: &Broker) -> BTreeMap<(String, i32), i64> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    let partitions =
        TOPICS.iter().flat_map(|(topic, _, _, count)| (0..*count).map(move |partition| (*topic, partition)));
    let end = |(topic, partition): (&str, i32)| {
        let (_, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap();
        ((topic.to_owned(), partition), high)
    };
    partitions.map(end).collect()
}

struct Setup {
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    listen: std::net::SocketAddr,
    pager: Pager,
}

impl Setup {
    fn new(dir: &Path, name: &str, broker: &Broker) -> Setup {
        let pager = Pager::start();
        let listen = free_port();
        let (data, config, log) = (dir.join(name), dir.join(format!("{name}.yaml")), dir.join(format!("{name}.log")));
        let secret = dir.join("secret");
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let topics: String = TOPICS
            .iter()
            .map(|(topic, source, cluster, _)| {
                let cluster = cluster.map(|c| format!(", cluster: {c}")).unwrap_or_default();
                format!("    - {{topic: {topic}, source: {source}{cluster}}}\n")
            })
            .collect();
        let text = format!(
            "data_dir: {}\nlisten: {listen}\nkafka:\n  brokers: {}\n  group: {name}\n  instance: {name}-1\n  idle_after: 2s\n  topics:\n{topics}  properties:\n    session.timeout.ms: 6000\nseal: {{bytes: 8MiB, age: 1s}}\nalerts:\n  receivers:\n    - name: pager\n      webhook: {{url: \"http://{}/page\", secrets: [{{file: {}}}]}}\n  route: {{receiver: pager}}\n  pages_per_hour_max: 10000\n",
            data.display(),
            broker.bootstrap(),
            pager.address,
            secret.display(),
        );
        std::fs::write(&config, text).unwrap();
        Setup { config, data, log, listen, pager }
    }

    fn start(&self) -> Run {
        Run::start(&self.config, self.listen, &self.log)
    }

    /// Until every partition is read and idle: then the watermarks follow the wall clock and every window is final.
    fn run_to_the_end(&self, produced: &Produced) {
        let mut run = self.start();
        let started = Instant::now();
        while self.offsets() != produced.ends {
            run.assert_running();
            let waited = started.elapsed();
            assert!(waited < Duration::from_secs(300), "committed {:?} of {:?}", self.offsets(), produced.ends);
            std::thread::sleep(Duration::from_millis(200));
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        run.wait_for_metrics("all watermarks to reach the present", Duration::from_secs(300), |metrics| {
            Source::ALL.iter().all(|source| {
                let name = format!("stakeout_watermark_seconds{{source=\"{source}\"}}");
                sample(metrics, &name).is_some_and(|mark| mark > now - 3600.0)
            })
        });
        run.terminate();
        // The last windows were evaluated while it stopped; their pages wait in the outbox for the next start.
        let mut run = self.start();
        run.wait_until_ready();
        let pending = alert::PageFilter { state: Some("pending".to_owned()), ..alert::PageFilter::default() };
        let reader = Reader::open(&self.data.join("alerts.db")).unwrap();
        let started = Instant::now();
        while !reader.outbox(&pending).unwrap().is_empty() {
            run.assert_running();
            assert!(started.elapsed() < Duration::from_secs(60), "pages are still waiting");
            std::thread::sleep(Duration::from_millis(50));
        }
        run.terminate();
    }

    /// The manifest's positions.
    fn offsets(&self) -> BTreeMap<(String, i32), i64> {
        let schemas = normalize::Schemas::builtin();
        let store = Store::open_read_only(&self.data, stakeout::rooms::stored(&schemas));
        let offsets = store.and_then(|s| s.offsets()).unwrap_or_default();
        offsets.0.into_iter().map(|((topic, partition), next)| ((topic.to_string(), partition), next)).collect()
    }

    /// Commits and rows in the manifest; zero before there is one.
    fn committed(&self) -> (u64, u64) {
        let schemas = normalize::Schemas::builtin();
        let store = Store::open_read_only(&self.data, stakeout::rooms::stored(&schemas));
        store.map_or((0, 0), |s| (s.sequence().unwrap_or(0), s.stats().map_or(0, |stats| stats.rows)))
    }

    fn assert_stored_exactly_once(&self, produced: &Produced) {
        assert_eq!(self.offsets(), produced.ends, "the manifest's offsets are not where the topics end");
        let schemas = normalize::Schemas::builtin();
        let store = Store::open_read_only(&self.data, stakeout::rooms::stored(&schemas)).unwrap();
        let session = query::session(&query::Limits::HUNT);
        stakeout::hunt::register(&session, &store).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut stored = BTreeSet::new();
        let mut rows = 0;
        runtime.block_on(async {
            let plan = query::plan_hunt(&session, "SELECT row_hash FROM events").await.unwrap();
            let mut batches = query::run_hunt(&session, plan, query::HuntLimits::default()).await.unwrap();
            while let Some(batch) = batches.next().await {
                let batch = batch.unwrap();
                rows += batch.num_rows();
                for hash in batch.column(0).as_fixed_size_binary().iter().flatten() {
                    stored.insert(<[u8; 16]>::try_from(hash).unwrap());
                }
            }
        });
        assert_eq!(rows, stored.len(), "a row is stored twice");
        let (lost, added) = (produced.hashes.difference(&stored).count(), stored.difference(&produced.hashes).count());
        assert_eq!((lost, added), (0, 0), "events lost and rows that nobody produced");
    }

    /// Id to the last instant it held.
    fn findings(&self) -> BTreeMap<String, (String, i64, u64)> {
        let reader = Reader::open(&self.data.join("alerts.db")).unwrap();
        let findings = reader.findings(&Filter::default()).unwrap().into_iter();
        findings
            .map(|f| (f.finding.id.clone(), (f.finding.rule.clone(), f.finding.time.last(), f.finding.evidence.count)))
            .collect()
    }

    /// Each incident has one page, acknowledged; only a page in flight when the process was killed may have come
    /// twice, and then with the same id.
    fn assert_every_incident_paged(&self, kills: usize) {
        let reader = Reader::open(&self.data.join("alerts.db")).unwrap();
        let incidents = reader.incidents(&Filter::default()).unwrap();
        let pages = reader.outbox(&alert::PageFilter::default()).unwrap();
        let acknowledged = self.pager.acknowledged();
        for incident in &incidents {
            let own: Vec<_> = pages.iter().filter(|p| p.incident == incident.id).collect();
            assert_eq!(own.len(), 1, "{incident:?} has {} pages", own.len());
            assert_eq!(own[0].state, "delivered", "page {}", own[0].id);
            assert!(acknowledged.contains_key(&own[0].id), "page {} never arrived", own[0].id);
        }
        let repeats: usize = acknowledged.values().map(|times| times.len() - 1).sum();
        assert!(repeats <= kills, "{repeats} pages came again after {kills} kills");
    }
}
