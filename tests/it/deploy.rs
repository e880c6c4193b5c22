//! What ships beside the binary: the compose file, the Dockerfile, the rules and the dashboard about ourselves. No container
//! runs here; everything that can be said of the files without one is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::{Run, finish, free_port, root, stakeout};

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn services(compose: &Value) -> impl Iterator<Item = (&str, &Value)> {
    compose["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service))
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().map(|items| items.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[test]
fn every_service_is_hardened() {
    let compose = yaml("docker-compose.yml");
    for (name, service) in services(&compose) {
        assert_eq!(list(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(list(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["mem_limit"].is_string() && service["pids_limit"].is_number(), "{name} is not limited");
        // Kafka's own start script writes beside its programs.
        assert_eq!(service["read_only"], Value::from(name != "kafka"), "{name}");
        let (_, tag) =
            service["image"].as_str().unwrap().rsplit_once(':').unwrap_or_else(|| panic!("{name} has no tag"));
        assert_ne!(tag, "latest", "{name}");
        for port in list(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        let networks: Vec<&str> = list(&service["networks"]);
        let known = compose["networks"].as_object().unwrap();
        assert!(networks.iter().all(|network| known.contains_key(*network)), "{name}: {networks:?}");
        for volume in list(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(file) => assert!(root().join(file).is_file(), "{name} mounts {file}"),
                None => assert!(compose["volumes"].as_object().unwrap().contains_key(source), "{name}: {source}"),
            }
        }
    }
}

#[test]
fn the_topics_are_those_of_the_config() {
    let compose = yaml("docker-compose.yml");
    let command = compose["services"]["topics"]["command"][0].as_str().unwrap();
    let made = command.split("for topic in ").nth(1).unwrap().split(';').next().unwrap();
    let config = yaml("pipeline/deploy/stakeout.yaml");
    let read: BTreeSet<&str> =
        config["kafka"]["topics"].as_array().unwrap().iter().map(|t| t["topic"].as_str().unwrap()).collect();
    assert_eq!(made.split_whitespace().collect::<BTreeSet<_>>(), read);
    // And the generator has a topic for each of its events.
    let generated = stakeout::generate::topics();
    let generated: BTreeSet<&str> = generated.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(generated, read);
    let brokers = config["kafka"]["brokers"].as_str().unwrap();
    assert!(
        compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap().ends_with(brokers)
    );
    finish(stakeout().args(["check", "--config", "pipeline/deploy/stakeout.yaml"]), &[0]);
}

#[test]
fn the_dockerfile_builds_what_is_here_and_runs_as_nobody() {
    let dockerfile = text("Dockerfile");
    let ignored: Vec<String> = text(".dockerignore").lines().map(str::to_owned).collect();
    for line in dockerfile.lines().filter(|l| l.starts_with("COPY ") && !l.contains("--from")) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{line}");
            assert!(!ignored.iter().any(|i| i == source), "{source} is ignored");
        }
    }
    for line in dockerfile.lines().filter(|l| l.starts_with("FROM ")) {
        let image = line.split_whitespace().nth(1).unwrap();
        assert!(image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{line}");
    }
    let last = dockerfile.rsplit("FROM ").next().unwrap();
    assert!(last.contains("\nUSER 65532:65532\n") && last.contains("\nHEALTHCHECK ") && !last.contains("\nRUN "));
}

#[test]
fn health_is_asked_by_the_binary_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (listen, config) = (free_port(), dir.path().join("c.yaml"));
    let rules = crate::line::rules(dir.path());
    let text =
        format!("data_dir: {0}/data\nlisten: {listen}\ndetections: {1}\n", dir.path().display(), rules.display());
    std::fs::write(&config, text).unwrap();
    let health = || {
        let mut command = stakeout();
        command.arg("health").arg("--config").arg(&config);
        command
    };
    let silent = health().output().unwrap();
    assert_eq!(silent.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&silent.stderr).contains("nobody answers at"), "{silent:?}");
    let mut run = Run::start(&config, listen, &dir.path().join("log"));
    run.wait_until_ready();
    assert_eq!(finish(&mut health(), &[0]), format!("ready at {listen}\n"));
    run.terminate();
}

/// A tool of Debian's packages, or `None` with a word about it.
fn tool(name: &str) -> Option<Command> {
    let here = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(here || std::env::var_os("STAKEOUT_TESTS_REQUIRE_ALL").is_none(), "{name} is absent");
    if !here {
        println!("skipped: {name} is absent");
    }
    here.then(|| Command::new(name))
}

#[test]
fn prometheus_and_alertmanager_take_their_files() {
    let deploy = root().join("pipeline/deploy");
    let Some(mut promtool) = tool("promtool") else { return };
    finish(promtool.current_dir(&deploy).args(["check", "rules", "alerts.yml"]), &[0]);
    finish(tool("promtool").unwrap().current_dir(&deploy).args(["test", "rules", "alerts.test.yml"]), &[0]);
    let dir = tempfile::tempdir().unwrap();
    let here = |name: &str, from: &str, to: &Path| {
        let file = dir.path().join(name);
        std::fs::write(&file, text(&format!("pipeline/deploy/{name}")).replace(from, &to.display().to_string()))
            .unwrap();
        file
    };
    let config = here("prometheus.yml", "/etc/prometheus/alerts.yml", &deploy.join("alerts.yml"));
    finish(tool("promtool").unwrap().args(["check", "config"]).arg(config), &[0]);
    // A panel's query is good if it would make a rule.
    let rules: Vec<Value> = queries()
        .iter()
        .enumerate()
        .map(|(n, expr)| serde_json::json!({ "record": format!("panel:{n}"), "expr": expr }))
        .collect();
    assert!(rules.len() > 10);
    let file: PathBuf = dir.path().join("panels.yml");
    std::fs::write(&file, serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] }).to_string()).unwrap();
    finish(tool("promtool").unwrap().args(["check", "rules"]).arg(file), &[0]);
    let Some(mut amtool) = tool("amtool") else { return };
    finish(amtool.arg("check-config").arg(deploy.join("alertmanager.yml")), &[0]);
}

fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&text("pipeline/deploy/grafana/stakeout.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Everything that a rule or a panel asks for is a metric that some room has.
#[test]
fn no_rule_and_no_panel_asks_for_a_metric_that_is_not_there() {
    let mut sources = String::new();
    let mut folders = vec![root().join("pipeline")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|e| e == "rs") => {
                    sources.push_str(&std::fs::read_to_string(path).unwrap());
                }
                _ => {}
            }
        }
    }
    let asked = queries().join("\n") + &text("pipeline/deploy/alerts.yml");
    let names: BTreeSet<&str> = asked
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("stakeout_"))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !sources.contains(&format!("\"{name}\""))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
