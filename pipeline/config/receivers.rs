//! The `receivers` section: where events may be sent over HTTP, by whom, and how much at a time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use alert::Secret;
use event::Source;
use source::http::{TOKEN_BYTES_MIN, TlsFiles, Token, Tokens};
use source::{CLUSTER_HEADER, RECORD_BYTES_MAX};

use super::tree::{Map, Node, Reader};
use super::{Config, Topic};

#[derive(Clone, Debug)]
pub struct Receivers {
    pub listen: SocketAddr,
    pub tls: Option<TlsFiles>,
    /// Of one body, as sent and decompressed.
    pub body_bytes_max: u64,
    /// Of all bodies at hand.
    pub in_flight_bytes_max: u64,
    /// Embedded log only: what may be received and not yet stored.
    pub backlog_bytes_max: u64,
    pub connections_max: usize,
    /// For the head of a request, then for its body; also for an idle connection.
    pub timeout: Duration,
    pub tokens: Vec<TokenConfig>,
}

/// A sender: what it presents, and what that says of its events.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    pub name: String,
    pub token: Secret,
    pub source: Source,
    pub cluster: Option<String>,
    pub topic: String,
}

/// kube-apiserver's batches end at 10 MiB by default.
const BODY_BYTES_MAX: u64 = 16 << 20;
const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;
/// Minutes of a busy cluster.
const BACKLOG_BYTES_MAX: u64 = 1 << 30;
const CONNECTIONS_MAX: u64 = 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

const KEYS: [&str; 9] = [
    "listen",
    "tls",
    "allow_plaintext",
    "body_max",
    "in_flight_max",
    "backlog_max",
    "connections_max",
    "timeout",
    "tokens",
];

impl Receivers {
    /// Reads the secrets; all mistakes of them at once.
    pub fn tokens(&self) -> Result<Tokens, Vec<String>> {
        let (mut tokens, mut mistakes): (Vec<Token>, Vec<String>) = (Vec::new(), Vec::new());
        for config in &self.tokens {
            let name = &config.name;
            let secret = match config.token.read() {
                Ok(secret) => secret,
                Err(why) => {
                    mistakes.push(format!("receivers: token `{name}`: {why}"));
                    continue;
                }
            };
            if secret.len() < TOKEN_BYTES_MIN {
                mistakes.push(format!(
                    "receivers: token `{name}` has less than {TOKEN_BYTES_MIN} characters\nhint: make one with `openssl rand -hex 32`"
                ));
            }
            let token = Token::new(&secret, name, config.source, config.cluster.as_deref(), &config.topic);
            if let Some(other) = tokens.iter().find(|other| other.same_secret(&token)) {
                mistakes.push(format!(
                    "receivers: tokens `{}` and `{name}` have the same secret\nhint: each sender needs its own, or they cannot be told apart",
                    other.name
                ));
            }
            tokens.push(token);
        }
        if mistakes.is_empty() { Ok(Tokens(tokens)) } else { Err(mistakes) }
    }

    /// The mistakes that need the environment or files.
    pub fn check(&self) -> Vec<String> {
        let mut mistakes = self.tokens().err().unwrap_or_default();
        let tls = self.tls.as_ref().map(TlsFiles::check);
        mistakes.extend(tls.and_then(Result::err).map(|error| format!("receivers: {error}")));
        mistakes
    }
}

/// `config` as far as it has been read: Kafka and the embedded topics.
pub(super) fn read(reader: &mut Reader, node: &Node, config: &Config) -> Option<Receivers> {
    let map = reader.map(node, "receivers", &KEYS);
    let tls = map.get("tls").and_then(|node| read_tls(reader, node));
    let plaintext = map.bool(reader, "allow_plaintext").unwrap_or(false);
    let listen = read_listen(reader, &map, map.get("tls").is_some() || plaintext);
    let body_bytes_max = size(reader, &map, "body_max", BODY_BYTES_MAX, RECORD_BYTES_MAX as u64);
    let in_flight_bytes_max = size(reader, &map, "in_flight_max", IN_FLIGHT_BYTES_MAX, u64::from(u32::MAX));
    if in_flight_bytes_max < body_bytes_max {
        let what = format!("receivers: `in_flight_max` {in_flight_bytes_max} is less than `body_max` {body_bytes_max}");
        reader.mistake(map.line, what, "at least one whole body must fit");
    }
    let tokens = read_tokens(reader, &map, config);
    Some(Receivers {
        listen: listen?,
        tls,
        body_bytes_max,
        in_flight_bytes_max,
        backlog_bytes_max: size(reader, &map, "backlog_max", BACKLOG_BYTES_MAX, u64::MAX),
        connections_max: usize::try_from(size(reader, &map, "connections_max", CONNECTIONS_MAX, 65_536)).ok()?,
        timeout: map.duration(reader, "timeout").unwrap_or(TIMEOUT),
        tokens,
    })
}

fn read_tls(reader: &mut Reader, node: &Node) -> Option<TlsFiles> {
    let map = reader.map(node, "receivers.tls", &["cert", "key"]);
    let (cert, key) = (map.required_text(reader, "cert"), map.required_text(reader, "key"));
    Some(TlsFiles { cert: PathBuf::from(cert?), key: PathBuf::from(key?) })
}

fn read_listen(reader: &mut Reader, map: &Map, may_leave_the_machine: bool) -> Option<SocketAddr> {
    let text = map.required_text(reader, "listen")?;
    let line = map.get("listen").map_or(map.line, |node| node.line);
    match text.parse::<SocketAddr>() {
        Ok(address) => {
            if !may_leave_the_machine && !address.ip().is_loopback() {
                reader.mistake(
                    line,
                    format!("receivers: {address} is not a loopback address, and there is no `tls`"),
                    "add `tls: {cert: FILE, key: FILE}`; or `allow_plaintext: true` if something in front ends TLS: tokens and events are readable on the wire",
                );
            }
            Some(address)
        }
        Err(_) => {
            let what = format!("receivers: `listen` is not an address: `{text}`");
            reader.mistake(line, what, "ADDRESS:PORT, such as 0.0.0.0:7443");
            None
        }
    }
}

/// A size or number of 1 to `max`.
fn size(reader: &mut Reader, map: &Map, key: &str, default: u64, max: u64) -> u64 {
    let Some(value) = map.bytes(reader, key) else { return default };
    if value == 0 || value > max {
        let line = map.get(key).map_or(map.line, |node| node.line);
        reader.mistake(line, format!("receivers: `{key}` {value} is out of bounds"), format!("1 to {max}"));
    }
    value
}

fn read_tokens(reader: &mut Reader, map: &Map, config: &Config) -> Vec<TokenConfig> {
    let mut tokens: Vec<TokenConfig> = Vec::new();
    let entries = map.get("tokens").map_or(&[] as &[Node], |node| reader.list(node, "receivers.tokens"));
    if entries.is_empty() {
        reader.mistake(
            map.line,
            "receivers: no `tokens`",
            "nobody could send: add `- {name: prod-audit, token: {file: FILE}, source: kubernetes, cluster: prod, topic: TOPIC}`",
        );
    }
    for entry in entries {
        if let Some(token) = read_token(reader, entry, config) {
            if tokens.iter().any(|other| other.name == token.name) {
                let what = format!("receivers.tokens: `{}` is there twice", token.name);
                reader.mistake(entry.line, what, "give each its own name");
            }
            tokens.push(token);
        }
    }
    tokens
}

fn read_token(reader: &mut Reader, entry: &Node, config: &Config) -> Option<TokenConfig> {
    let what = "receivers.tokens";
    let map = reader.map(entry, what, &["name", "token", "source", "cluster", "topic"]);
    let (name, topic) = (map.required_text(reader, "name"), map.required_text(reader, "topic"));
    let cluster = map.text(reader, "cluster");
    let token = match map.get("token").map(|node| (node.line, serde_json::from_value::<Secret>(node.to_json()))) {
        Some((_, Ok(token))) => Some(token),
        Some((line, Err(error))) => {
            let text = error.to_string();
            let (wrong, hint) = text.split_once("\nhint: ").unwrap_or((&text, "write `{env: NAME}` or `{file: PATH}`"));
            reader.mistake(line, format!("{what}: {wrong}"), hint);
            None
        }
        None => {
            let hint = "add `token: {env: NAME}` or `token: {file: PATH}`";
            reader.mistake(entry.line, format!("{what}: `token` is missing"), hint);
            None
        }
    };
    let source = match map.required_text(reader, "source").map(|text| text.parse::<Source>()) {
        Some(Ok(source)) => Some(source),
        Some(Err(error)) => {
            let text = error.to_string();
            let (wrong, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
            reader.mistake(entry.line, format!("{what}: {wrong}"), hint);
            None
        }
        None => None,
    };
    let token = TokenConfig { name: name?, token: token?, source: source?, cluster, topic: topic? };
    if token.source.needs_cluster() && token.cluster.is_none() {
        reader.mistake(
            entry.line,
            format!("{what}: `{}` of source {} has no `cluster`", token.name, token.source),
            "its events do not say which cluster they come from: add `cluster: NAME`",
        );
    } else if let Some((wrong, hint)) = misplaced(&token, config) {
        reader.mistake(entry.line, format!("{what}: `{}`: {wrong}", token.name), hint);
    }
    Some(token)
}

/// The topic must be one that is read, as events of what the token stands for.
fn misplaced(token: &TokenConfig, config: &Config) -> Option<(String, String)> {
    let (topics, section) = match &config.kafka {
        Some(kafka) => (&kafka.topics, "kafka.topics"),
        None => (&config.embedded, "embedded"),
    };
    let cluster = token.cluster.as_deref().map(|c| format!(", cluster: {c}")).unwrap_or_default();
    let entry = format!("{{topic: {}, source: {}{cluster}}}", token.topic, token.source);
    let Some(topic) = topics.iter().find(|topic| topic.name == token.topic) else {
        let wrong = format!("topic `{}` is not in `{section}`", token.topic);
        return Some((wrong, format!("add `- {entry}` there")));
    };
    if topic.source != token.source {
        let wrong = format!("topic `{}` holds {} events, not {}", topic.name, topic.source, token.source);
        return Some((wrong, "use a topic of the token's source".to_owned()));
    }
    (!carries(topic, token)).then(|| {
        let of = topic.cluster.as_deref().unwrap_or("no cluster");
        let by_header = match config.kafka {
            Some(_) => format!(", or add `cluster_header: {CLUSTER_HEADER}` to it"),
            None => String::new(),
        };
        let wrong = format!("topic `{}` is mapped to {of}, not to the token's cluster", topic.name);
        (wrong, format!("use another topic for each cluster{by_header}"))
    })
}

fn carries(topic: &Topic, token: &TokenConfig) -> bool {
    topic.cluster == token.cluster || topic.cluster_header.as_deref() == Some(CLUSTER_HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: &str =
        "  tokens: [{name: a, token: {env: T}, source: kubernetes, cluster: default, topic: kubernetes}]\n";

    fn mistakes(text: &str) -> Vec<String> {
        let mistakes = Config::parse("c.yaml", text).expect_err("has mistakes");
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_full_section_is_understood() {
        let text = "embedded: [{topic: k8s, source: kubernetes, cluster: prod}, {topic: trail, source: cloudtrail}]\nreceivers:\n  listen: 0.0.0.0:7443\n  tls: {cert: /c.pem, key: /k.pem}\n  body_max: 8MiB\n  in_flight_max: 32MiB\n  backlog_max: 2GiB\n  connections_max: 100\n  timeout: 10s\n  tokens:\n    - {name: prod, token: {env: A}, source: kubernetes, cluster: prod, topic: k8s}\n    - {name: aws, token: {file: /t}, source: cloudtrail, topic: trail}\n";
        let receivers = Config::parse("c.yaml", text).expect("is right").receivers.expect("has receivers");
        assert_eq!(receivers.listen, SocketAddr::from(([0, 0, 0, 0], 7443)));
        assert_eq!((receivers.body_bytes_max, receivers.in_flight_bytes_max), (8 << 20, 32 << 20));
        assert_eq!((receivers.backlog_bytes_max, receivers.connections_max), (2 << 30, 100));
        assert_eq!(receivers.timeout, Duration::from_secs(10));
        assert_eq!(receivers.tokens.len(), 2);
        let loopback =
            Config::parse("c.yaml", &format!("receivers:\n  listen: '[::1]:7443'\n{SENDER}")).expect("is right");
        let receivers = loopback.receivers.expect("has receivers");
        assert_eq!((receivers.tls, receivers.body_bytes_max), (None, 16 << 20));
    }

    #[test]
    fn plain_text_leaves_the_machine_only_when_told_so() {
        let plain = format!("receivers:\n  listen: 0.0.0.0:7443\n{SENDER}");
        let told = mistakes(&plain);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("c.yaml:2: receivers: 0.0.0.0:7443 is not a loopback address"), "{told:?}");
        assert!(told[0].contains("allow_plaintext"), "{told:?}");
        Config::parse("c.yaml", &format!("{plain}  allow_plaintext: true\n")).expect("was told so");
        assert_eq!(mistakes(&format!("{plain}  allow_plaintext: false\n")).len(), 1);
        let told = mistakes(&format!("{plain}  allow_plaintext: 1\n"));
        assert!(
            told.iter().any(|mistake| mistake.contains("c.yaml:4: receivers: `allow_plaintext` is neither")),
            "{told:?}"
        );
    }

    #[test]
    fn all_mistakes_of_tokens_are_told() {
        let text = "receivers:\n  listen: somewhere\n  in_flight_max: 1MiB\n  body_max: 1TiB\n  tokens:\n    - {name: a, token: hunter2hunter2hunter2, source: kubernetes, cluster: default, topic: kubernetes}\n    - {name: b, token: {env: B}, source: kubernetes, topic: kubernetes}\n    - {name: c, token: {env: C}, source: falco, cluster: prod, topic: falco}\n    - {name: d, token: {env: D}, source: falco, cluster: default, topic: kubernetes}\n    - {name: e, token: {env: E}, source: cloudtrail, topic: trail}\n    - {name: e, source: cloudtrial}\n";
        let told = mistakes(text).join("\n");
        for part in [
            "c.yaml:2: receivers: `listen` is not an address: `somewhere`",
            "c.yaml:4: receivers: `body_max` is not a size",
            "receivers: `in_flight_max` 1048576 is less than `body_max` 16777216",
            "c.yaml:6: receivers.tokens: a secret cannot stand in the configuration",
            "c.yaml:7: receivers.tokens: `b` of source kubernetes has no `cluster`",
            "c.yaml:8: receivers.tokens: `c`: topic `falco` is mapped to default, not to the token's cluster",
            "c.yaml:9: receivers.tokens: `d`: topic `kubernetes` holds kubernetes events, not falco",
            "c.yaml:10: receivers.tokens: `e`: topic `trail` is not in `embedded`\nhint: add `- {topic: trail, source: cloudtrail}` there",
            "c.yaml:11: receivers.tokens: `token` is missing",
            "c.yaml:11: receivers.tokens: `topic` is missing",
            "c.yaml:11: receivers.tokens: unknown source `cloudtrial`",
        ] {
            assert!(told.contains(part), "{part}\n{told}");
        }
        assert!(!told.contains("hunter2"), "{told}");
        assert!(mistakes("receivers: {listen: '127.0.0.1:1'}\n")[0].contains("no `tokens`"));
    }

    #[test]
    fn with_kafka_a_topic_may_carry_several_clusters_by_header() {
        let text = |more: &str| {
            format!(
                "kafka: {{brokers: b, topics: [{{topic: k8s, source: kubernetes, cluster: prod{more}}}]}}\nreceivers:\n  listen: 127.0.0.1:0\n  tokens: [{{name: a, token: {{env: T}}, source: kubernetes, cluster: dev, topic: k8s}}]\n"
            )
        };
        assert!(mistakes(&text(""))[0].contains("add `cluster_header: stakeout-cluster` to it"));
        Config::parse("c.yaml", &text(", cluster_header: stakeout-cluster")).expect("is right");
    }
}
