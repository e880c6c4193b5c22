//! Retention in the real process: events go, what rules remember of them stays, over a restart and in a backup.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use event::{Micros, Source, format_micros};
use serde_json::Value;
use stakeout::config::Topic;
use stakeout::generate::Sink;
use synthetic::Event;

use crate::process::{Run, finish, free_port, sample, stakeout};

const DAY: Micros = 86_400_000_000;

const BINDINGS: &str = "/*\ntitle: Who made a binding\nkey: [binding]\n*/\n\
    SELECT objectref_name AS binding, actor_user_name AS author FROM kubernetes\n\
    WHERE verb = 'create' AND objectref_resource = 'rolebindings'\n";
const TOUCHED: &str = "/*\ntitle: Somebody else removed a binding\nseverity: high\nentity: [binding]\n\
    summary: \"{binding} of {author}\"\n*/\n\
    SELECT b.binding, b.author FROM kubernetes e JOIN bindings b\n\
    ON b.binding = e.objectref_name AND e.time >= b.valid_from AND e.time < b.valid_to\n\
    WHERE e.verb = 'delete' AND b.author <> e.actor_user_name\n";
const NEW: &str = "/*\ntitle: Somebody removes something for the first time\nseverity: low\nentity: [actor_user_name]\n\
    summary: \"{actor_user_name}\"\nlearning: 7d\n*/\n\
    SELECT actor_user_name FROM kubernetes WHERE verb = 'delete' AND first_seen(INTERVAL '90 days', actor_user_name)\n";

struct Place {
    dir: tempfile::TempDir,
    topic: Topic,
    listen: std::net::SocketAddr,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            dir: tempfile::tempdir().unwrap(),
            topic: Topic::new("k8s", Source::Kubernetes, Some("prod")),
            listen: free_port(),
        };
        let rules = place.at("detections");
        std::fs::create_dir_all(rules.join("state")).unwrap();
        std::fs::create_dir_all(rules.join("kubernetes")).unwrap();
        std::fs::write(rules.join("state/bindings.sql"), BINDINGS).unwrap();
        std::fs::write(rules.join("kubernetes/touched.sql"), TOUCHED).unwrap();
        std::fs::write(rules.join("kubernetes/new.sql"), NEW).unwrap();
        place.config("data", "");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `also` stands in the section of retention.
    fn config(&self, data: &str, also: &str) {
        let text = format!(
            "data_dir: {}\ndetections: {}\nlisten: {}\nseal: {{age: 100ms}}\n\
             embedded:\n  - {{topic: k8s, source: kubernetes, cluster: prod}}\n\
             store:\n  retention: {{age: 30d, by: event{also}}}\n  compaction: {{every: 100ms}}\n",
            self.at(data).display(),
            self.at("detections").display(),
            self.listen,
        );
        std::fs::write(self.at("c.yaml"), text).unwrap();
    }

    fn start(&self) -> Run {
        let mut run = Run::start(&self.at("c.yaml"), self.listen, &self.at("log"));
        run.wait_until_ready();
        run
    }

    fn feed(&self, data: &str, events: &[(Micros, &str, &str, &str)]) {
        let events: Vec<Event> = events.iter().map(|(time, who, verb, name)| call(*time, who, verb, name)).collect();
        Sink::embedded(&self.at(data).join("log"), std::slice::from_ref(&self.topic)).unwrap().send(&events).unwrap();
    }

    /// Runs over what was fed until findings of these rules and entities are there, and no others.
    fn finds(&self, data: &str, expected: &[(&str, &str)]) {
        let mut run = self.start();
        let started = Instant::now();
        loop {
            let mut found = findings(&self.at(data));
            found.sort();
            if found.iter().map(|(rule, of)| (rule.as_str(), of.as_str())).eq(expected.iter().copied()) {
                break;
            }
            run.assert_running();
            assert!(started.elapsed() < Duration::from_secs(30), "{found:?} instead of {expected:?}\n{}", run.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        run.terminate();
    }
}

fn call(time: Micros, who: &str, verb: &str, name: &str) -> Event {
    let at = format_micros(time);
    let bytes = format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{who}-{verb}-{name}-{time}","stage":"ResponseComplete","requestURI":"/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/{name}","verb":"{verb}","user":{{"username":"{who}"}},"sourceIPs":["10.0.0.1"],"objectRef":{{"resource":"rolebindings","namespace":"shop","name":"{name}","apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"{at}","stageTimestamp":"{at}"}}"#
    );
    Event { time, source: Source::Kubernetes, cluster: Some("prod"), bytes: bytes.into_bytes() }
}

/// Rule and entity; a finding of a rule that is learning says so.
fn findings(data: &Path) -> Vec<(String, String)> {
    let mut command = stakeout();
    command.args(["alerts", "--findings", "--format", "ndjson", "--data-dir"]).arg(data);
    let told = finish(&mut command, &[0, 1]);
    let of = |line: &str| {
        let finding = serde_json::from_str::<Value>(line).unwrap()["finding"].take();
        let entity = finding["entity"][0][1].as_str().unwrap().to_owned();
        let learning = if finding["learning"] == true { " (learning)" } else { "" };
        (finding["rule"].as_str().unwrap().to_owned(), entity + learning)
    };
    told.lines().map(of).collect()
}

fn stored(data: &Path) -> String {
    let mut command = stakeout();
    command.args(["sql", "SELECT count(*) AS n FROM kubernetes", "--format", "csv", "--data-dir"]).arg(data);
    finish(&mut command, &[0]).trim().replace('\n', " ")
}

#[test]
fn what_rules_know_outlives_the_events() {
    let place = Place::new();
    let now = stakeout::rooms::wall_clock();
    let old = now - 60 * DAY;
    place.feed("data", &[(old, "alice", "create", "ops"), (old + DAY, "bob", "delete", "other")]);
    let mut run = place.start();
    run.wait_for_metrics("retention", Duration::from_secs(30), |metrics| {
        sample(metrics, "stakeout_expired_rows_total") == Some(2.0)
    });
    run.terminate();
    let data = place.at("data");
    assert_eq!(stored(&data), "n 0");
    let learned = ("new", "bob (learning)");
    let found = findings(&data);
    assert_eq!(found.iter().map(|(rule, of)| (rule.as_str(), of.as_str())).collect::<Vec<_>>(), [learned]);

    // The copy of a backup remembers as well.
    finish(stakeout().args(["backup", "--data-dir"]).arg(&data).arg(place.at("backup")), &[0]);
    finish(stakeout().args(["restore"]).arg(place.at("backup")).arg("--data-dir").arg(place.at("copy")), &[0]);

    let today = [(now, "bob", "delete", "ops"), (now, "carol", "delete", "third")];
    place.feed("data", &today);
    place.finds("data", &[learned, ("new", "carol"), ("touched", "ops")]);

    place.config("copy", "");
    place.feed("copy", &today);
    place.finds("copy", &[learned, ("new", "carol"), ("touched", "ops")]);

    // Who must not remember anything says so.
    place.config("copy", ", remember: false");
    let tomorrow = [(now + 1, "bob", "delete", "ops"), (now + 1, "dora", "delete", "fourth")];
    place.feed("copy", &tomorrow);
    place.finds("copy", &[learned, ("new", "carol"), ("new", "dora (learning)"), ("touched", "ops")]);
}

/// A limit that is set holds: what can never be remembered goes after some tries, and says so.
#[test]
fn a_limit_holds_although_nothing_can_be_remembered() {
    let place = Place::new();
    let old = stakeout::rooms::wall_clock() - 60 * DAY;
    place.feed("data", &[(old, "alice", "create", "ops"), (old + DAY, "bob", "delete", "other")]);
    // A file stands where the folder should be.
    std::fs::write(place.at("data/retained"), "in the way").unwrap();
    let mut run = place.start();
    let value = |metrics: &str, name: &str| sample(metrics, name).unwrap_or(0.0);
    run.wait_for_metrics("tries", Duration::from_secs(30), |metrics| {
        value(metrics, "stakeout_keeper_errors_total") >= 1.0
    });
    run.wait_for_metrics("retention", Duration::from_secs(60), |metrics| {
        let (errors, lost) = ("stakeout_keeper_errors_total", "stakeout_retained_lost_total");
        value(metrics, "stakeout_expired_rows_total") == 2.0
            && value(metrics, errors) >= 9.0
            && value(metrics, lost) >= 1.0
    });
    let said = run.said();
    for expected in ["it stays for now", "events expire that are not remembered"] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    run.terminate();
}
