//! Events that are sent over HTTP to the real process: every format, every refusal, TLS, and (in `load`) what 2xx
//! means when the process is killed.

mod client;
mod load;

use std::path::{Path, PathBuf};
use std::time::Duration;

use event::Source;
use synthetic::{Generator, Options};

use self::client::{Answer, Connection, request};
use crate::process::{Run, finish, free_port, sample, stakeout};

const KUBERNETES: &str = "kubernetes-sender-secret";
const FALCO: &str = "falco-sender-secret-0";
const CLOUDTRAIL: &str = "cloudtrail-sender-secret";

/// A data directory, its config with one sender per source, and the folder they are in.
pub struct Setup {
    dir: tempfile::TempDir,
    pub config: PathBuf,
    pub data: PathBuf,
    pub log: PathBuf,
    pub listen: std::net::SocketAddr,
    pub receive: std::net::SocketAddr,
}

impl Setup {
    /// `receivers` goes into the section beside `listen` and `tokens`, `rest` to the end of the file.
    pub fn new(receivers: &str, rest: &str) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        for (name, secret) in [("k", KUBERNETES), ("f", FALCO), ("c", CLOUDTRAIL)] {
            std::fs::write(dir.path().join(name), secret).unwrap();
        }
        let (listen, receive) = (free_port(), free_port());
        let at = dir.path().display();
        let text = format!(
            "data_dir: {at}/data\nlisten: {listen}\nreceivers:\n  listen: {receive}\n{receivers}  tokens:\n    - {{name: audit, token: {{file: {at}/k}}, source: kubernetes, cluster: prod, topic: audit}}\n    - {{name: falco, token: {{file: {at}/f}}, source: falco, cluster: prod, topic: falco}}\n    - {{name: trail, token: {{file: {at}/c}}, source: cloudtrail, topic: trail}}\n{rest}"
        );
        let config = dir.path().join("stakeout.yaml");
        std::fs::write(&config, text).unwrap();
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        Setup { dir, config, data, log, listen, receive }
    }

    pub fn embedded(receivers: &str, rest: &str) -> Setup {
        let topics = "embedded:\n  - {topic: audit, source: kubernetes, cluster: prod}\n  - {topic: falco, source: falco, cluster: prod}\n  - {topic: trail, source: cloudtrail}\n";
        Setup::new(receivers, &format!("{topics}{rest}"))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn start(&self) -> Run {
        let mut run = Run::start(&self.config, self.listen, &self.log);
        run.wait_until_ready();
        run
    }

    fn sql(&self, query: &str) -> String {
        let out = finish(stakeout().args(["sql", query, "--format", "csv", "--data-dir"]).arg(&self.data), &[0, 1]);
        out.lines().skip(1).collect::<Vec<_>>().join("\n")
    }
}

fn bearer(secret: &str) -> String {
    format!("authorization: Bearer {secret}\r\n")
}

fn gzip(dir: &Path, bytes: &[u8]) -> Vec<u8> {
    let path = dir.join("body");
    std::fs::write(&path, bytes).unwrap();
    std::process::Command::new("gzip").arg("-c").arg(path).output().expect("gzip is installed").stdout
}

/// Distinct generated events of one source.
fn events(source: Source, count: usize) -> Vec<Vec<u8>> {
    let stream = Options { seed: 9, gap: 1000, attack_every: 0, cloudtrail_delay: 0.0, ..Options::default() };
    let mut events: Vec<Vec<u8>> = Vec::new();
    for event in Generator::new(stream).filter(|event| event.source == source) {
        if events.len() == count {
            break;
        }
        if !events.contains(&event.bytes) {
            events.push(event.bytes);
        }
    }
    events
}

fn joined(events: &[Vec<u8>], separator: &[u8]) -> Vec<u8> {
    events.join(separator)
}

/// A self-signed certificate for `localhost`: the file of it and of its key.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (config, cert, key) = (dir.join("tls.cnf"), dir.join("tls.pem"), dir.join("tls.key"));
    let text = "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\nsubjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n";
    std::fs::write(&config, text).unwrap();
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost".split(' '),
    );
    openssl.arg("-config").arg(config).arg("-keyout").arg(&key).arg("-out").arg(&cert);
    let output = openssl.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (cert, key)
}

#[test]
fn every_format_arrives_over_tls() {
    let mut setup = Setup::embedded("  tls: {cert: tls.pem, key: tls.key}\n", "seal: {age: 500ms}\n");
    let (cert, key) = certificate(setup.path());
    let text = std::fs::read_to_string(&setup.config).unwrap();
    let tls = format!("{{cert: {}, key: {}}}", cert.display(), key.display());
    std::fs::write(&setup.config, text.replace("{cert: tls.pem, key: tls.key}", &tls)).unwrap();
    setup.log = setup.path().join("stderr");

    let (audit, falco, trail) =
        (events(Source::Kubernetes, 40), events(Source::Falco, 4), events(Source::CloudTrail, 9));
    let list = |prefix: &[u8], events: &[Vec<u8>]| [prefix, &joined(events, b","), b"]}"].concat();
    let event_list = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    let falco_path = format!("/v1/receive/falco/{FALCO}");
    let (k8s, trail_path) = ("/v1/receive/kubernetes", "/v1/receive/cloudtrail");
    let json = "content-type: application/json\r\n";
    let zipped = gzip(setup.path(), &list(event_list, &audit[10..20]));
    let sent: Vec<(&str, String, Vec<u8>)> = vec![
        (k8s, bearer(KUBERNETES) + json, list(event_list, &audit[..10])),
        ("/v1/receive/kubernetes?timeout=30s", bearer(KUBERNETES) + "content-encoding: gzip\r\n", zipped),
        (k8s, bearer(KUBERNETES) + "content-type: application/x-ndjson\r\n", joined(&audit[20..30], b"\n")),
        (k8s, bearer(KUBERNETES), audit[30].clone()),
        (k8s, bearer(KUBERNETES), [b"[", &*joined(&audit[31..], b", "), b"]"].concat()),
        (&falco_path, json.to_owned(), falco[0].clone()),
        (
            "/v1/receive/falco",
            bearer(FALCO) + "content-type: application/json; charset=utf-8\r\n",
            joined(&falco[1..], b"\n"),
        ),
        (trail_path, bearer(CLOUDTRAIL), list(b"{\"Records\":[", &trail[..5])),
        (trail_path, bearer(CLOUDTRAIL), joined(&trail[5..], b"\n")),
    ];

    let mut run = setup.start();
    let mut connection = Connection::tls(setup.receive, &cert);
    for (path, headers, body) in &sent {
        let answer = connection.send(&request("POST", path, headers, body)).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    let all = (audit.len() + falco.len() + trail.len()) as f64;
    run.wait_for_metrics("all events", Duration::from_secs(30), |metrics| {
        sample(metrics, "stakeout_events_admitted_total") == Some(all)
            && sample(metrics, "stakeout_receiver_requests_total{path=\"kubernetes\",code=\"200\"}") == Some(5.0)
            && sample(metrics, "stakeout_receiver_ack_seconds_count") == Some(sent.len() as f64)
            && sample(metrics, "stakeout_receiver_in_flight_bytes") == Some(0.0)
            && sample(metrics, "stakeout_receiver_backlog_bytes") == Some(0.0)
    });
    run.terminate();
    let counted = setup.sql("SELECT source, cluster, topic, count(*) FROM events GROUP BY 1, 2, 3 ORDER BY 1");
    assert_eq!(counted, "cloudtrail,,trail,9\nfalco,prod,falco,4\nkubernetes,prod,audit,40");
    assert_eq!(setup.sql("SELECT count(*) FROM unparsed"), "0");
}

fn check(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    let error = &body["error"];
    assert_eq!(error["code"], code);
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer:?}");
    assert!(error["hint"].as_str().is_some_and(|m| !m.is_empty()), "{answer:?}");
    assert_eq!(answer.headers.contains_key("retry-after"), matches!(status, 429 | 503), "{answer:?}");
}

#[test]
fn every_refusal_is_clear_and_keeps_nothing() {
    let bounds = "  body_max: 100KiB\n  in_flight_max: 150KiB\n  backlog_max: 4KiB\n  timeout: 6s\n";
    // Nothing is committed before the end: the backlog only grows.
    let setup = Setup::embedded(bounds, "seal: {age: 1h}\n");
    let mut run = setup.start();
    let send = |request: &[u8]| Connection::plain(setup.receive).send(request).unwrap();
    let post = |path: &str, headers: &str, body: &[u8]| send(&request("POST", path, headers, body));
    let k8s = "/v1/receive/kubernetes";
    let own = bearer(KUBERNETES);

    check(&post(k8s, &own, b"{\"kind\":\"EventList\",\"items\":[}"), 400, "not_json");
    check(&post(k8s, &own, b"{}\n{\"half\":"), 400, "not_json");
    check(&post(k8s, &own, b""), 400, "empty");
    check(&post(k8s, "", b"{}"), 401, "unauthorized");
    check(&post(k8s, &bearer("kubernetes-sender-secreT"), b"{}"), 401, "unauthorized");
    check(&post(k8s, &bearer(FALCO), b"{}"), 403, "wrong_source");
    check(&post("/v1/receive/falco", &own, b"{}"), 403, "wrong_source");
    check(&post("/v1/receive/nobody", &own, b"{}"), 404, "not_found");
    check(&send(&request("GET", k8s, &own, b"")), 405, "method_not_allowed");
    check(&post(k8s, &own, &b" ".repeat(5 << 20)), 413, "too_large");
    let bomb = gzip(setup.path(), &b" ".repeat(50 << 20));
    check(&post(k8s, &format!("{own}content-encoding: gzip\r\n"), &bomb), 413, "too_large");
    check(&post(k8s, &format!("{own}content-encoding: zstd\r\n"), b"{}"), 415, "unsupported_encoding");

    // A slow sender: it holds its share until its time is over, and another one has to wait that long.
    let mut slow = Connection::plain(setup.receive);
    let whole = request("POST", k8s, &own, &b" ".repeat(100_000));
    slow.stream().write_all(&whole[..whole.len() - 1]).unwrap();
    run.wait_for_metrics("the slow sender's share", Duration::from_secs(10), |metrics| {
        sample(metrics, "stakeout_receiver_in_flight_bytes") == Some(100_000.0)
    });
    check(&post(k8s, &own, &b" ".repeat(100_000)), 429, "busy");
    check(&slow.read().unwrap(), 408, "timeout");

    let event = &events(Source::Kubernetes, 1)[0];
    let large = [event.as_slice(), b" ".repeat(8192).as_slice()].concat();
    assert_eq!(post(k8s, &own, &large).status, 200);
    check(&post(k8s, &own, event), 503, "backlog");
    run.wait_for_metrics("counted refusals", Duration::from_secs(10), |metrics| {
        let refused =
            |reason: &str| sample(metrics, &format!("stakeout_receiver_refused_total{{reason=\"{reason}\"}}"));
        refused("unauthorized") == Some(2.0) && refused("backlog") == Some(1.0) && refused("not_json") == Some(2.0)
    });
    run.terminate();
    assert_eq!(setup.sql("SELECT count(*) FROM events"), "1");
    assert_eq!(setup.sql("SELECT count(*) FROM unparsed"), "0");
    let told = std::fs::read_to_string(&setup.log).unwrap();
    assert_eq!(told.matches("refused senders without a valid token").count(), 1, "at most once a minute:\n{told}");
    assert!(!told.contains("secre"), "a secret is in the log:\n{told}");
}

#[test]
fn plain_text_does_not_leave_the_machine_unasked() {
    let setup = Setup::embedded("", "");
    let text = std::fs::read_to_string(&setup.config).unwrap();
    let open = text.replace(&format!("  listen: {}", setup.receive), "  listen: 0.0.0.0:0");
    std::fs::write(&setup.config, &open).unwrap();
    let output = stakeout().args(["run", "--config"]).arg(&setup.config).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("0.0.0.0:0 is not a loopback address, and there is no `tls`\nhint: add `tls:"), "{told}");

    std::fs::write(&setup.config, open.replace("receivers:\n", "receivers:\n  allow_plaintext: true\n")).unwrap();
    let checked = finish(stakeout().args(["check", "--config"]).arg(&setup.config), &[0]);
    assert!(checked.contains("nothing is wrong"), "{checked}");
    std::fs::remove_file(setup.path().join("k")).unwrap();
    let checked = finish(stakeout().args(["check", "--config"]).arg(&setup.config), &[1]);
    assert!(checked.contains("receivers: token `audit`: cannot read secret file"), "{checked}");
}
