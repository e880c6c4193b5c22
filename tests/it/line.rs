//! What the tests of the line share: the topics, a `stakeout run` set up on a broker and a pager, and what must be true
//! of its data directory in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alert::{Filter, Reader};
use event::Source;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sha2::{Digest, Sha256};
use synthetic::Event;

use crate::kafka::Broker;
use crate::pager::Pager;
use crate::process::{Run, free_port, root, sample};
use crate::stored;

const SECOND: i64 = 1_000_000;
/// 2026-01-15T09:00:00Z.
pub const START: i64 = 1_768_467_600 * SECOND;
/// Name, source, cluster and partitions.
pub const TOPICS: [(&str, Source, Option<&str>, i32); 5] = [
    ("audit-eu", Source::Kubernetes, Some("prod-eu"), 3),
    ("audit-us", Source::Kubernetes, Some("prod-us"), 2),
    ("audit-staging", Source::Kubernetes, Some("staging"), 1),
    ("trail", Source::CloudTrail, None, 3),
    ("falco", Source::Falco, Some("prod-eu"), 1),
];

/// Of a random test; printed by it.
pub fn seed() -> u64 {
    std::env::var("STAKEOUT_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random)
}

pub fn create_topics(broker: &Broker) {
    for (topic, _, _, partitions) in TOPICS {
        broker.create_topic(topic, partitions);
    }
}

/// The topic of the event's source and cluster, else any of its source.
pub fn topic_of(event: &Event) -> &'static str {
    let of_source = TOPICS.iter().filter(|t| t.1 == event.source);
    of_source.clone().find(|t| t.2 == event.cluster).or(of_source.clone().next()).unwrap().0
}

/// The row hash.
pub fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(bytes)[..16]);
    hash
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// What went into the topics.
pub struct Produced {
    /// Hashes of distinct elements; repeats are dropped.
    pub hashes: BTreeSet<[u8; 16]>,
    /// Where each partition ends.
    pub ends: BTreeMap<(String, i32), i64>,
}

pub fn ends(broker: &Broker) -> BTreeMap<(String, i32), i64> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    let mut ends = BTreeMap::new();
    for (topic, ..) in TOPICS {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        for partition in metadata.topics()[0].partitions() {
            let (_, high) = consumer.fetch_watermarks(topic, partition.id(), Duration::from_secs(10)).unwrap();
            ends.insert((topic.to_owned(), partition.id()), high);
        }
    }
    ends
}

pub struct Setup {
    config: PathBuf,
    pub data: PathBuf,
    log: PathBuf,
    listen: std::net::SocketAddr,
    pager: Pager,
}

impl Setup {
    pub fn new(dir: &Path, name: &str, broker: &Broker) -> Setup {
        Setup::with(dir, name, broker, &[])
    }

    /// With librdkafka properties.
    pub fn with(dir: &Path, name: &str, broker: &Broker, properties: &[(&str, &str)]) -> Setup {
        let pager = Pager::start();
        let listen = free_port();
        let (data, config, log) = (dir.join(name), dir.join(format!("{name}.yaml")), dir.join(format!("{name}.log")));
        let rules = rules(dir);
        let secret = dir.join("secret");
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let topics: String = TOPICS
            .iter()
            .map(|(topic, source, cluster, _)| {
                let cluster = cluster.map(|c| format!(", cluster: {c}")).unwrap_or_default();
                format!("    - {{topic: {topic}, source: {source}{cluster}}}\n")
            })
            .collect();
        let properties: String = properties.iter().map(|(key, value)| format!("    {key}: {value}\n")).collect();
        let text = format!(
            "\
data_dir: {}
detections: {}
listen: {listen}
kafka:
  brokers: {}
  group: {name}
  instance: {name}-1
  idle_after: 2s
  topics:
{topics}  properties:
    session.timeout.ms: 6000
{properties}seal: {{bytes: 8MiB, age: 1s}}
alerts:
  receivers:
    - name: pager
      webhook: {{url: \"http://{}/page\", secrets: [{{file: {}}}]}}
  route: {{receiver: pager}}
  pages_per_hour_max: 10000
",
            data.display(),
            rules.display(),
            broker.bootstrap(),
            pager.address,
            secret.display(),
        );
        std::fs::write(&config, text).unwrap();
        Setup { config, data, log, listen, pager }
    }

    pub fn start(&self) -> Run {
        Run::start(&self.config, self.listen, &self.log)
    }

    /// Until every partition is read and idle: then the watermarks follow the wall clock and every window is final.
    pub fn run_to_the_end(&self, produced: &Produced) {
        let mut run = self.start();
        self.wait_for_the_end(&mut run, produced, Duration::from_secs(300));
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

    /// Until the manifest's positions are where the topics end.
    pub fn wait_for_the_end(&self, run: &mut Run, produced: &Produced, at_most: Duration) {
        let started = Instant::now();
        while stored::positions(&self.data) != produced.ends {
            run.assert_running();
            let waited = started.elapsed();
            assert!(waited < at_most, "committed {:?} of {:?}", stored::positions(&self.data), produced.ends);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn assert_stored_exactly_once(&self, produced: &Produced) {
        let positions = stored::positions(&self.data);
        assert_eq!(positions, produced.ends, "the manifest's offsets are not where the topics end");
        stored::assert_exactly_once(&self.data, &produced.hashes, &BTreeSet::new());
    }

    /// Id to the last instant it held.
    pub fn findings(&self) -> BTreeMap<String, (String, i64, u64)> {
        let reader = Reader::open(&self.data.join("alerts.db")).unwrap();
        let findings = reader.findings(&Filter::default()).unwrap().into_iter();
        findings
            // What was announced ahead of time and did not come depends on when things were read.
            .filter(|f| f.finding.standing != event::Standing::Retracted)
            .map(|f| (f.finding.id.clone(), (f.finding.rule.clone(), f.finding.time.last(), f.finding.evidence.count)))
            .collect()
    }

    /// Each incident has one page, acknowledged; only a page in flight when the process was killed may have come
    /// twice, and then with the same id.
    pub fn assert_every_incident_paged(&self, kills: usize) {
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

/// Five rules whose findings page: what two runs find can then be compared page by page. Rules that learn say nothing to
/// anybody, and what they announced depends on the order in which topics were read.
pub fn rules(dir: &Path) -> PathBuf {
    let rules = dir.join("detections");
    for rule in [
        "kubernetes/k8s-pod-exec",
        "kubernetes/k8s-secret-read-burst",
        "cloudtrail/aws-cloudtrail-tampering",
        "cloudtrail/aws-access-denied-burst",
        "falco/falco-escape-primitive",
    ] {
        let path = rules.join(format!("{rule}.sql"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(root().join(format!("detections/{rule}.sql")), path).unwrap();
    }
    rules
}
