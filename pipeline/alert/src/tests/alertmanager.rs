//! A real Alertmanager: what it is sent it groups, routes, and resolves when we retract. Debian's package
//! `prometheus-alertmanager` has it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use event::{Finding, FindingTime, Frontier, Standing};
use serde_json::Value;

use super::fake::{Fake, FastClock, Reply, eventually};
use super::finding;
use crate::{Alerts, Clock, Config, Delivery, PageFilter, Reader, SystemClock, UreqHttp};

const PROGRAM: &str = "prometheus-alertmanager";

/// A process of its own, ended when dropped.
struct Alertmanager {
    child: Child,
    port: u16,
}

impl Alertmanager {
    /// Sends what it has at once to `hook`, and again when it resolves.
    fn start(folder: &std::path::Path, port: u16, hook: &str) -> Alertmanager {
        let config = folder.join("alertmanager.yml");
        let yaml = format!(
            "route: {{receiver: hook, group_by: [cluster], group_wait: 100ms, group_interval: 200ms, repeat_interval: 1h}}\n\
             receivers: [{{name: hook, webhook_configs: [{{url: \"{hook}\", send_resolved: true}}]}}]\n"
        );
        std::fs::write(&config, yaml).unwrap();
        let child = Command::new(PROGRAM)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.join("am").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let alertmanager = Alertmanager { child, port };
        eventually(|| alertmanager.get("/-/ready").is_some(), "Alertmanager is ready");
        alertmanager
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }

    fn alerts(&self) -> Vec<Value> {
        serde_json::from_str(&self.get("/api/v2/alerts").unwrap()).unwrap()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_here() -> bool {
    let here = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(here || std::env::var_os("STAKEOUT_TESTS_REQUIRE_ALL").is_none(), "{PROGRAM} is absent");
    if !here {
        eprintln!("skipped: {PROGRAM} is absent (Debian has it as a package)");
    }
    here
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn held(user: &str, standing: Standing) -> Finding {
    let time = FindingTime::Run { first: 100, last: 100, window_us: 50, every_us: 1 };
    Finding { standing, ..finding("burst", user, time) }
}

#[test]
fn a_real_alertmanager_groups_routes_and_resolves() {
    if !is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hook = Fake::start([], Reply::Status(200, "", ""));
    let port = free_port();
    let yaml = format!(
        "link: https://stakeout.example\n\
         receivers: [{{name: am, alertmanager: {{url: \"http://127.0.0.1:{port}/\", holds: 1h}}}}]\n\
         route: {{receiver: am}}\n"
    );
    let config: Config = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(config.validate(), [""; 0]);
    let db = folder.path().join("alerts.db");
    let mut alerts = Alerts::open(&db, &config).unwrap();
    let http = Arc::new(UreqHttp::with_timeout(Duration::from_secs(2)));
    let delivery = Delivery::start(&db, &config, alerts.bell(), http, Arc::new(FastClock::new(20))).unwrap();
    let pages = || Reader::open(&db).unwrap().outbox(&PageFilter::default()).unwrap();

    // Nobody listens yet: nothing is lost.
    let found = [held("ann", Standing::Provisional), held("bob", Standing::Provisional)];
    alerts.record(&found, &Frontier::default(), SystemClock.now()).unwrap();
    eventually(|| pages().iter().all(|page| page.attempts > 0), "a first attempt at each page");
    let alertmanager = Alertmanager::start(folder.path(), port, &hook.url);
    eventually(|| pages().iter().all(|page| page.state == "delivered"), "both pages are delivered");

    let fired = alertmanager.alerts();
    assert_eq!(fired.len(), 2);
    for alert in &fired {
        assert_eq!(alert["labels"]["alertname"], "burst");
        assert_eq!(alert["labels"]["cluster"], "prod");
        assert_eq!(alert["labels"]["severity"], "high");
        assert_eq!(alert["status"]["state"], "active");
        assert!(alert["generatorURL"].as_str().unwrap().starts_with("https://stakeout.example"));
        let user = alert["labels"]["actor_user_name"].as_str().unwrap();
        assert_eq!(alert["annotations"]["summary"], format!("{user} read 21 secrets in ten minutes"));
    }
    // Its own grouping: both users of one cluster are one message.
    let told = |status: &str| {
        let all = hook.received().into_iter().map(|message| message.json());
        all.filter(|message| message["alerts"].as_array().unwrap().iter().any(|a| a["status"] == status))
            .collect::<Vec<_>>()
    };
    eventually(
        || told("firing").iter().any(|m| m["alerts"].as_array().unwrap().len() == 2),
        "one message of two alerts",
    );
    assert_eq!(told("firing")[0]["groupLabels"], serde_json::json!({ "cluster": "prod" }));

    // One of them turns out to be nothing.
    let mut frontier = Frontier::default();
    frontier.boundaries.insert("burst".to_owned(), 1_000);
    let taken_back = [held("ann", Standing::Retracted), held("bob", Standing::Confirmed)];
    alerts.record(&taken_back, &frontier, SystemClock.now()).unwrap();
    eventually(|| alertmanager.alerts().len() == 1, "the retracted alert has ended");
    assert_eq!(alertmanager.alerts()[0]["labels"]["actor_user_name"], "bob");
    eventually(|| !told("resolved").is_empty(), "its end is told");
    let resolved: Vec<Value> = told("resolved")[0]["alerts"].as_array().unwrap().clone();
    let ended: Vec<_> = resolved.iter().filter(|a| a["status"] == "resolved").collect();
    assert_eq!((ended.len(), &ended[0]["labels"]["actor_user_name"]), (1, &Value::from("ann")));

    // It restarts and has lost what it had in memory: within a minute it has it again, and what ended stays ended.
    drop(alertmanager);
    let forgetful = tempfile::tempdir().unwrap();
    let alertmanager = Alertmanager::start(forgetful.path(), port, &hook.url);
    eventually(|| !alertmanager.alerts().is_empty(), "what fires is told again");
    let fires = alertmanager.alerts();
    assert_eq!((fires.len(), &fires[0]["labels"]["actor_user_name"]), (1, &Value::from("bob")));
    assert_eq!(
        fires[0]["startsAt"],
        fired.iter().find(|a| a["labels"]["actor_user_name"] == "bob").unwrap()["startsAt"]
    );
    // No page's fate was touched by that.
    assert!(pages().iter().all(|page| page.state == "delivered"));
    delivery.shutdown();
}
