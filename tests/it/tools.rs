//! The tools of a detection engineer, as commands over a folder of rules and a data directory: check, test, explain,
//! backtest and why.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{finish, root, stakeout};

const EVENTS: &str = "20000";

/// A rule over one row.
const EXEC: &str = "\
/*
title: Access to a pod
severity: low
entity: [cluster, actor_user_name]
summary: \"{actor_user_name} opened {objectref_subresource}\"
triage: Ask.
*/
SELECT cluster, actor_user_name, objectref_subresource
FROM   kubernetes_calls
WHERE  objectref_subresource IN ('exec', 'attach')
";

/// Fires for an exec, and not for a log.
const EXEC_TEST: &str = "\
cases:
  - name: an exec
    source: kubernetes
    cluster: prod
    events:
      - event:
          auditID: a1
          stage: ResponseStarted
          verb: create
          requestURI: /api/v1/namespaces/shop/pods/web/exec
          user: {username: ann}
          objectRef: {resource: pods, namespace: shop, name: web, subresource: exec}
          stageTimestamp: \"{time}\"
    expect: [{entity: {actor_user_name: ann}, values: {objectref_subresource: exec}}]
  - name: a log is no access
    source: kubernetes
    cluster: prod
    events:
      - event:
          auditID: a2
          stage: ResponseComplete
          verb: get
          requestURI: /api/v1/namespaces/shop/pods/web/log
          user: {username: ann}
          objectRef: {resource: pods, namespace: shop, name: web, subresource: log}
          stageTimestamp: \"{time}\"
    fires: false
";

/// A folder of rules: name and text of each file below `kubernetes/`.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("kubernetes")).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join("kubernetes").join(name), text).unwrap();
    }
    dir
}

fn with_rules(command: &str, rules: &Path) -> std::process::Command {
    let mut stakeout = stakeout();
    stakeout.arg(command).arg("--detections").arg(rules);
    stakeout
}

#[test]
fn check_tells_errors_from_warnings() {
    let check = |files: &[(&str, &str)], strict: bool, code: i32, expected: &[&str]| {
        let rules = folder(files);
        let mut command = with_rules("check", rules.path());
        if strict {
            command.arg("--strict");
        }
        let said = finish(&mut command, &[code]);
        for part in expected {
            assert!(said.contains(part), "expected `{part}` in:\n{said}");
        }
    };
    let tests = ("exec.test.yaml", EXEC_TEST);
    check(&[("exec.sql", EXEC), tests], true, 0, &["4 tables, 1 rules checked: nothing is wrong"]);
    let wrong = EXEC.replace("WHERE ", "WHERE  verb = 'Create' AND");
    let expected = ["exec.sql:10: `verb` is never `Create`", "hint: did you mean `create`?", ": 1 mistake\n"];
    check(&[("exec.sql", &wrong), tests], false, 1, &expected);
    // What cannot be loaded is told with the mistakes of the others.
    let clash = EXEC.replace("WHERE ", "WHERE  response_code = 'no' AND");
    let expected = ["exec.sql:10: `response_code` is a number", "near miss", ": 2 mistakes\n"];
    let (fires, _) = EXEC_TEST.split_once("  - name: a log").unwrap();
    check(&[("exec.sql", &clash), ("exec.test.yaml", fires)], false, 1, &expected);
    let silent = EXEC.replace("triage: Ask.\n", "");
    let expected = ["exec.sql:1: warning: the rule has no `triage`", "nothing is wrong, 1 warning\n"];
    check(&[("exec.sql", &silent), tests], false, 0, &expected);
    check(&[("exec.sql", &silent), tests], true, 1, &expected);
    check(&[("exec.sql", EXEC)], false, 1, &["exec.sql: no tests", "hint: write exec.test.yaml beside it"]);
    let (only_fires, _) = EXEC_TEST.split_once("  - name: a log").unwrap();
    let expected = ["exec.test.yaml: there is no case that does not fire: a near miss", ": 1 mistake\n"];
    check(&[("exec.sql", EXEC), ("exec.test.yaml", only_fires)], false, 1, &expected);
}

#[test]
fn the_pack_has_no_mistakes() {
    let said = finish(stakeout().args(["check", "--strict"]), &[0]);
    assert!(said.contains("nothing is wrong\n"), "{said}");
}

/// What is said but for how long it took.
fn without_time(said: &str) -> &str {
    said.rsplit_once(" (").map_or(said, |(said, _)| said)
}

#[test]
fn tests_say_the_same_on_any_number_of_threads() {
    let broken = EXEC_TEST.replace("actor_user_name: ann}, values", "actor_user_name: bob}, values");
    let rules = folder(&[("exec.sql", EXEC), ("exec.test.yaml", &broken), ("other.sql", EXEC)]);
    let report = rules.path().join("report.xml");
    let run = |jobs: &str| {
        let mut command = with_rules("test", rules.path());
        finish(command.args(["--jobs", jobs, "--junit"]).arg(&report), &[1])
    };
    let (one, eight) = (run("1"), run("8"));
    assert_eq!(without_time(&one), without_time(&eight));
    for part in [
        "exec.test.yaml:2: case `an exec`",
        "actor_user_name: expected bob, got ann",
        "other.sql: no tests",
        "1 rules, 1 cases passed, 2 failed",
    ] {
        assert!(one.contains(part), "expected `{part}` in:\n{one}");
    }
    let xml = std::fs::read_to_string(&report).unwrap();
    for part in [
        "<testsuites name=\"stakeout test\" tests=\"3\" failures=\"1\" errors=\"1\"",
        "<testsuite name=\"exec\"",
        "<testcase name=\"a log is no access\" classname=\"exec\"",
        "line=\"2\"",
        "<failure message=\"missing: actor_user_name=bob\">",
        "<testsuite name=\"other\"",
        "<error message=\"the tests cannot be run\">",
    ] {
        assert!(xml.contains(part), "expected `{part}` in:\n{xml}");
    }
    let opened = xml.matches("<testcase ").count();
    assert_eq!(opened, xml.matches("</testcase>").count() + xml.matches("\"/>").count());
}

#[test]
fn explain_says_what_a_rule_means() {
    let check = |rule: &str, expected: &[&str]| {
        let said = finish(stakeout().args(["explain", rule]), &[0]);
        for part in expected {
            assert!(said.contains(part), "expected `{part}` in:\n{said}");
        }
    };
    check(
        "k8s-secret-read-burst",
        &["every 30s at the 5m before", "kubernetes_calls, 7 columns", "AND verb = 'get'", "audit level Metadata"],
    );
    check("k8s-pod-exec", &["at one row at a time", "the row itself, of kubernetes"]);
    finish(stakeout().args(["explain", "k8s-pod-exek"]), &[2]);
}

#[test]
fn explain_names_the_rules_that_share_panes() {
    let windowed = EXEC.replace("triage", "window: 10m\nevery: 1m\ntriage").replace("SELECT", "SELECT count(*) AS n,");
    let above =
        |n: u32| format!("{windowed}GROUP BY cluster, actor_user_name, objectref_subresource HAVING count(*) > {n}\n");
    let longer = above(5).replace("10m", "20m");
    let rules = folder(&[("many.sql", &above(50)), ("some.sql", &above(5)), ("longer.sql", &longer)]);
    let said = |rule: &str| finish(stakeout().args(["explain", rule, "--detections"]).arg(rules.path()), &[0]);
    assert!(said("some").contains("kept once for it and many"), "{}", said("some"));
    assert!(said("many").contains("kept once for it and some"), "{}", said("many"));
    assert!(!said("longer").contains("kept once"), "{}", said("longer"));
}

/// A data directory with imported synthetic events of all sources, evaluated by five rules beside it.
fn imported() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    crate::line::rules(dir.path());
    let (made, data) = (dir.path().join("made"), dir.path().join("data"));
    // Twenty attacks, five seconds apart and brief: some of them are what these rules are about.
    let generate = ["generate", "--events", EVENTS, "--attack-every", "1000", "--density", "200", "--brief"];
    finish(stakeout().args(generate).args(["--cloudtrail-delay", "0.01", "--out"]).arg(&made), &[0]);
    for source in ["kubernetes", "cloudtrail", "falco"] {
        let file = made.join(format!("{source}.ndjson"));
        let import = ["import", "--source", source, "--cluster", "prod", "--data-dir"];
        finish(stakeout().current_dir(dir.path()).args(import).arg(&data).arg(file), &[0]);
    }
    (dir, data)
}

fn lines(said: &str) -> Vec<Value> {
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn on(data: &Path, args: &[&str]) -> std::process::Command {
    let mut command = stakeout();
    command.current_dir(data.parent().unwrap()).args(args).arg("--data-dir").arg(data);
    command
}

/// Findings by id, without what depends on when they were recorded.
fn recorded(data: &Path) -> BTreeMap<String, Value> {
    let said = finish(&mut on(data, &["alerts", "--findings", "--limit", "10000", "--format", "ndjson"]), &[0]);
    lines(&said).into_iter().map(|stored| stored["finding"].clone()).map(|f| (id(&f), f)).collect()
}

fn id(finding: &Value) -> String {
    finding["id"].as_str().unwrap().to_owned()
}

#[test]
fn backtest_finds_what_the_import_found_and_why_tells_it() {
    let (_dir, data) = imported();
    let found = recorded(&data);
    assert!(found.len() > 3, "{found:?}");
    let said = finish(&mut on(&data, &["backtest", "--format", "ndjson"]), &[0]);
    let tried: BTreeMap<String, Value> = lines(&said).into_iter().map(|f| (id(&f), f)).collect();
    assert_eq!(tried, found);
    assert_eq!(recorded(&data), found, "a backtest records nothing");
    in_a_range(&data, &found);
    compared(&data, &found);
    explained(&data, &found);
}

/// Single-event rules find what lies in the range and nothing else.
fn in_a_range(data: &Path, found: &BTreeMap<String, Value>) {
    let of_events: Vec<(String, i64)> =
        found.values().filter_map(|f| Some((id(f), f["time"]["event"].as_i64()?))).collect();
    let (from, to) = ("2026-01-15T09:00:05Z", "2026-01-15T09:00:15Z");
    let micros = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
    let mut expected: Vec<&String> =
        of_events.iter().filter(|(_, time)| (micros(from)..micros(to)).contains(time)).map(|(id, _)| id).collect();
    expected.sort();
    let args = ["backtest", "--format", "ndjson", "--from", from, "--to", to];
    let said = finish(&mut on(data, &args), &[0, 1]);
    let mut got: Vec<String> = lines(&said).iter().filter(|f| f["time"]["event"].is_i64()).map(id).collect();
    got.sort();
    assert_eq!(got.iter().collect::<Vec<_>>(), expected);
    let nothing = ["backtest", "--from", "2030-01-01T00:00:00Z"];
    let said = finish(&mut on(data, &nothing), &[1]);
    assert!(said.contains("0 findings"), "{said}");
}

/// A rule that looks for less removes findings, and leaves the others as they are.
fn compared(data: &Path, found: &BTreeMap<String, Value>) {
    let pack = root().join("detections");
    let burst = std::fs::read_to_string(pack.join("kubernetes/k8s-secret-read-burst.sql")).unwrap();
    let stricter =
        folder(&[("k8s-secret-read-burst.sql", &burst.replace(">= 10", ">= 1000000").replace(">= 3", ">= 1000000"))]);
    let compare = |other: &Path, code: i32| {
        let args = ["backtest", "k8s-secret-read-burst", "--format", "ndjson"];
        finish(on(data, &args).arg("--compare").arg(&pack).arg(other), &[code])
    };
    let bursts = found.values().filter(|f| f["rule"] == "k8s-secret-read-burst").count();
    assert!(bursts > 0);
    let count = |said: &str, change: &str| lines(said).iter().filter(|l| l["change"] == change).count();
    let same = compare(&pack, 0);
    assert_eq!((count(&same, "unchanged"), lines(&same).len()), (bursts, bursts));
    let fewer = compare(stricter.path(), 1);
    assert_eq!((count(&fewer, "removed"), lines(&fewer).len()), (bursts, bursts));
    finish(&mut on(data, &["backtest", "k8s-secret-read-bursts"]), &[2]);
}

fn explained(data: &Path, found: &BTreeMap<String, Value>) {
    let burst = found.values().find(|f| f["rule"] == "k8s-secret-read-burst").unwrap();
    let events = burst["evidence"]["count"].as_u64().unwrap();
    let check = |id: &str, expected: &[String]| {
        let said = finish(&mut on(data, &["why", id]), &[0]);
        for part in expected {
            assert!(said.contains(part.as_str()), "expected `{part}` in:\n{said}");
        }
    };
    let expected = [
        format!("finding {} of k8s-secret-read-burst (high, confirmed, import)", id(burst)),
        "does not hold".to_owned(),
        format!("holds: actor_user_name={}", burst["values"]["actor_user_name"].as_str().unwrap()),
        format!("{events} events; the same query returns as many today"),
        ", as today (".to_owned(),
    ];
    check(&id(burst), &expected);
    check(&id(burst)[..12], &expected);
    let exec = found.values().find(|f| f["rule"] == "k8s-pod-exec").unwrap();
    check(&id(exec), &["1 events; the same query returns as many today".to_owned()]);
    // With other rules than it was found by.
    let rules = folder(&[("exec.sql", EXEC)]);
    let said = finish(on(data, &["why", &id(burst)]).arg("--detections").arg(rules.path()), &[0]);
    assert!(said.contains("today there is no rule `k8s-secret-read-burst`"), "{said}");
    assert!(said.contains("have changed since"), "{said}");
    finish(&mut on(data, &["why", "zzz"]), &[1]);
}

#[test]
fn who_reads_only_the_first_lines_gets_no_error() {
    for args in [&["explain", "k8s-mass-deletion"][..], &["check"], &["test"]] {
        let mut child = stakeout().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.signal(), Some(13), "{args:?}: {}", output.status);
    }
}
