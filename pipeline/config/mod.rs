//! `stakeout.yaml`: what was typed -> what it means. Every default is here, once; unknown keys are refused and all
//! mistakes of the file are reported together.

mod receivers;
mod tree;
mod upkeep;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use event::Source;

pub use receivers::{Receivers, TokenConfig};
use tree::{Map, Node, Reader};
pub use tree::{Mistake, parse_bytes, parse_duration};
pub use upkeep::Upkeep;

/// What a run needs to know.
#[derive(Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    /// `None`: `./detections` if it is there, else the pack that the binary carries.
    pub detections: Option<PathBuf>,
    /// `None`: the schemas that the binary carries.
    pub schemas: Option<PathBuf>,
    /// Where `/livez`, `/readyz` and `/metrics` answer; `None` turns them off.
    pub listen: Option<SocketAddr>,
    /// Absent: the embedded log is the source.
    pub kafka: Option<Kafka>,
    /// Topics of the embedded log.
    pub embedded: Vec<Topic>,
    /// Absent: nothing is received over HTTP.
    pub receivers: Option<Receivers>,
    pub lateness: BTreeMap<Source, Duration>,
    /// Event times further ahead of the wall clock do not move a watermark beyond it.
    pub future_skew: Duration,
    pub seal_bytes: u64,
    pub seal_age: Duration,
    pub upkeep: Upkeep,
    pub alerts: alert::Config,
}

/// A topic and whose events it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub source: Source,
    pub cluster: Option<String>,
    /// Kafka only: the record header that names the cluster; `cluster` is for records without it.
    pub cluster_header: Option<String>,
}

impl Topic {
    /// A topic of one cluster.
    pub fn new(name: &str, source: Source, cluster: Option<&str>) -> Topic {
        Topic { name: name.to_owned(), source, cluster: cluster.map(str::to_owned), cluster_header: None }
    }
}

#[derive(Clone, Debug)]
pub struct Kafka {
    pub brokers: String,
    pub group: String,
    /// Static membership: a restart within the session timeout causes no rebalance. One name per process.
    pub instance: Option<String>,
    pub topics: Vec<Topic>,
    /// Passed to librdkafka as they are (TLS, SASL, tuning).
    pub properties: BTreeMap<String, String>,
    /// A partition without new records for this long and without lag no longer holds its source's watermark back.
    pub idle_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: "data".into(),
            detections: None,
            schemas: None,
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 7070))),
            kafka: None,
            embedded: vec![
                Topic::new("kubernetes", Source::Kubernetes, Some("default")),
                Topic::new("cloudtrail", Source::CloudTrail, None),
                Topic::new("falco", Source::Falco, Some("default")),
            ],
            receivers: None,
            // CloudTrail delivers within about 15 minutes; the others stream.
            lateness: BTreeMap::from([
                (Source::Kubernetes, Duration::from_secs(30)),
                (Source::CloudTrail, Duration::from_secs(20 * 60)),
                (Source::Falco, Duration::from_secs(15)),
            ]),
            future_skew: Duration::from_secs(60),
            seal_bytes: 64 << 20,
            seal_age: Duration::from_secs(15),
            upkeep: Upkeep::default(),
            alerts: alert::Config::default(),
        }
    }
}

const KEYS: [&str; 12] = [
    "data_dir",
    "detections",
    "schemas",
    "listen",
    "kafka",
    "embedded",
    "receivers",
    "lateness",
    "future_skew",
    "seal",
    "store",
    "alerts",
];

impl Config {
    pub fn load(path: &Path) -> Result<Config, Vec<Mistake>> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            vec![Mistake {
                file: file.clone(),
                line: 0,
                what: format!("cannot read the config: {error}"),
                hint: "name it with --config FILE".to_owned(),
            }]
        })?;
        Config::parse(&file, &text)
    }

    pub fn parse(file: &str, text: &str) -> Result<Config, Vec<Mistake>> {
        let mut reader = Reader::new(file);
        let node = Node::parse(file, text).map_err(|mistake| vec![mistake])?;
        let config = read(&mut reader, &node);
        reader.mistakes.sort_by_key(|mistake| mistake.line);
        if reader.mistakes.is_empty() { Ok(config) } else { Err(reader.mistakes) }
    }
}

fn read(reader: &mut Reader, node: &Node) -> Config {
    let mut config = Config::default();
    let root = reader.map(node, "config", &KEYS);
    if let Some(dir) = root.text(reader, "data_dir") {
        config.data_dir = dir.into();
    }
    config.detections = root.text(reader, "detections").map(PathBuf::from);
    config.schemas = root.text(reader, "schemas").map(PathBuf::from);
    if let Some(listen) = root.text(reader, "listen") {
        config.listen = read_listen(reader, &root, &listen);
    }
    config.kafka = root.get("kafka").and_then(|node| read_kafka(reader, node));
    if let Some(node) = root.get("embedded") {
        config.embedded = read_topics(reader, node, "embedded", &["topic", "source", "cluster"]);
    }
    config.receivers = root.get("receivers").and_then(|node| receivers::read(reader, node, &config));
    if let Some(node) = root.get("lateness") {
        let map = reader.map(node, "lateness", &Source::ALL.map(Source::name));
        for source in Source::ALL {
            if let Some(lateness) = map.duration(reader, source.name()) {
                config.lateness.insert(source, lateness);
            }
        }
    }
    if let Some(skew) = root.duration(reader, "future_skew") {
        config.future_skew = skew;
    }
    if let Some(node) = root.get("seal") {
        let map = reader.map(node, "seal", &["bytes", "age"]);
        config.seal_bytes = map.bytes(reader, "bytes").unwrap_or(config.seal_bytes);
        config.seal_age = map.duration(reader, "age").unwrap_or(config.seal_age);
    }
    if let Some(node) = root.get("store") {
        config.upkeep = upkeep::read(reader, node);
    }
    if let Some(node) = root.get("alerts") {
        config.alerts = read_alerts(reader, node);
    }
    config
}

fn read_listen(reader: &mut Reader, root: &Map, listen: &str) -> Option<SocketAddr> {
    if listen == "off" {
        return None;
    }
    let line = root.get("listen").map_or(0, |n| n.line);
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        Ok(address) => {
            // No TLS and no authentication yet: what listens stays on the machine.
            reader.mistake(
                line,
                format!("`listen` {address} is not a loopback address"),
                "use 127.0.0.1:PORT and a local proxy or scraper",
            );
            None
        }
        Err(_) => {
            reader.mistake(
                line,
                format!("`listen` is not an address: `{listen}`"),
                "ADDRESS:PORT, such as 127.0.0.1:7070, or `off`",
            );
            None
        }
    }
}

fn read_kafka(reader: &mut Reader, node: &Node) -> Option<Kafka> {
    let map = reader.map(node, "kafka", &["brokers", "group", "instance", "topics", "properties", "idle_after"]);
    let brokers = map.required_text(reader, "brokers");
    let topics = match map.get("topics") {
        Some(node) => read_topics(reader, node, "kafka.topics", &["topic", "source", "cluster", "cluster_header"]),
        None => {
            reader.mistake(
                map.line,
                "kafka: `topics` is missing",
                "map each topic: `- {topic: k8s-audit, source: kubernetes, cluster: prod}`",
            );
            Vec::new()
        }
    };
    let mut properties = BTreeMap::new();
    if let Some(node) = map.get("properties") {
        let all = reader.open_map(node, "kafka.properties");
        for (key, _) in all.entries() {
            if let Some(value) = all.text(reader, key) {
                properties.insert(key.to_owned(), value);
            }
        }
    }
    Some(Kafka {
        brokers: brokers?,
        instance: map.text(reader, "instance"),
        group: map.text(reader, "group").unwrap_or_else(|| "stakeout".to_owned()),
        topics,
        properties,
        idle_after: map.duration(reader, "idle_after").unwrap_or(Duration::from_secs(30)),
    })
}

fn read_topics(reader: &mut Reader, node: &Node, what: &str, keys: &[&str]) -> Vec<Topic> {
    let mut topics: Vec<Topic> = Vec::new();
    for entry in reader.list(node, what) {
        let map = reader.map(entry, what, keys);
        let name = map.required_text(reader, "topic");
        let source = map.required_text(reader, "source");
        let (cluster, cluster_header) = (map.text(reader, "cluster"), map.text(reader, "cluster_header"));
        let source = match source.map(|s| s.parse::<Source>()) {
            Some(Ok(source)) => source,
            Some(Err(error)) => {
                let text = error.to_string();
                let (what_wrong, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
                reader.mistake(entry.line, format!("{what}: {what_wrong}"), hint);
                continue;
            }
            None => continue,
        };
        let Some(name) = name else { continue };
        if source.needs_cluster() && cluster.is_none() && cluster_header.is_none() {
            let or_header = if keys.contains(&"cluster_header") { " or `cluster_header: HEADER`" } else { "" };
            reader.mistake(
                entry.line,
                format!("{what}: topic `{name}` of source {source} has no `cluster`"),
                format!("its events do not say which cluster they come from: add `cluster: NAME`{or_header}"),
            );
        }
        if topics.iter().any(|t| t.name == name) {
            reader.mistake(entry.line, format!("{what}: topic `{name}` is mapped twice"), "keep one entry");
        }
        topics.push(Topic { name, source, cluster, cluster_header });
    }
    if topics.is_empty() && reader.mistakes.is_empty() {
        reader.mistake(node.line, format!("{what}: no topic"), "map at least one");
    }
    topics
}

fn read_alerts(reader: &mut Reader, node: &Node) -> alert::Config {
    match serde_json::from_value::<alert::Config>(node.to_json()) {
        Ok(config) => {
            for mistake in config.validate() {
                let text = mistake.to_string();
                let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
                reader.mistake(node.line, format!("alerts: {what}"), hint);
            }
            config
        }
        Err(error) => {
            let text = error.to_string();
            let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, "see the alerts section of the README"));
            reader.mistake(node.line, format!("alerts: {what}"), hint);
            alert::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_lines() {
        let text = "data_dri: x\nkafka:\n  brokers: localhost:9092\n  topics:\n    - topic: audit\n      source: kubernets\n    - topic: k8s\n      source: kubernetes\nseal:\n  bytes: 64 parsecs\n  age: soon\n";
        let mistakes = Config::parse("stakeout.yaml", text).expect_err("has mistakes");
        let shown: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let expect = [
            "stakeout.yaml:1: config: unknown key `data_dri`\nhint: did you mean `data_dir`?",
            "stakeout.yaml:5: kafka.topics: unknown source `kubernets`\nhint: one of kubernetes, cloudtrail, falco",
            "stakeout.yaml:7: kafka.topics: topic `k8s` of source kubernetes has no `cluster`\nhint: its events do not say which cluster they come from: add `cluster: NAME` or `cluster_header: HEADER`",
            "stakeout.yaml:10: seal: `bytes` is not a size: `64 parsecs`\nhint: a number with a unit: 64MiB, 512KiB, 1GiB",
            "stakeout.yaml:11: seal: `age` is not a duration: `soon`\nhint: a number with a unit: 500ms, 30s, 10m, 24h, 7d",
        ];
        assert_eq!(shown, expect);
    }

    #[test]
    fn a_full_config_is_understood() {
        let text = "data_dir: /var/lib/stakeout\nlisten: 127.0.0.1:9000\nkafka:\n  brokers: k1:9093,k2:9093\n  group: siem\n  topics:\n    - {topic: audit, source: kubernetes, cluster: prod}\n    - {topic: trail, source: cloudtrail}\n  properties:\n    security.protocol: SSL\n    ssl.ca.location: /etc/ca.pem\nlateness: {cloudtrail: 25m}\nseal: {bytes: 32MiB, age: 5s}\n";
        let config = Config::parse("stakeout.yaml", text).expect("is right");
        let kafka = config.kafka.expect("has kafka");
        assert_eq!(kafka.topics.len(), 2);
        assert_eq!(kafka.properties["security.protocol"], "SSL");
        assert_eq!(config.lateness[&Source::CloudTrail], Duration::from_secs(1500));
        assert_eq!(config.lateness[&Source::Falco], Duration::from_secs(15));
        assert_eq!(config.seal_bytes, 32 << 20);
    }

    #[test]
    fn a_record_header_may_name_the_cluster() {
        let text = "kafka:\n  brokers: k:9092\n  topics:\n    - {topic: all, source: falco, cluster_header: stakeout-cluster}\n";
        let kafka = Config::parse("c.yaml", text).expect("is right").kafka.expect("has kafka");
        let all = Topic { cluster_header: Some("stakeout-cluster".into()), ..Topic::new("all", Source::Falco, None) };
        assert_eq!(kafka.topics, [all]);
        // The embedded log keeps no headers.
        let text = "embedded:\n  - {topic: all, source: falco, cluster_header: x}\n";
        let mistakes = Config::parse("c.yaml", text).expect_err("refused");
        assert!(mistakes.iter().any(|m| m.what.contains("unknown key `cluster_header`")), "{mistakes:?}");
    }

    #[test]
    fn the_api_stays_on_loopback() {
        let mistakes = Config::parse("c.yaml", "listen: 0.0.0.0:7070\n").expect_err("refused");
        assert!(mistakes[0].what.contains("not a loopback"), "{mistakes:?}");
    }
}
