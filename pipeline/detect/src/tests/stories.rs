//! The rules that ship, their test files, and the format of those.

use std::path::{Path, PathBuf};

use event::{Frontier, Origin, Watermarks};

use crate::fixtures::{Row, Store, admitted_as, row, shipped_schemas};
use crate::testing::{Case, Expect, START_DEFAULT, TestFile, check};
use crate::{Engine, RuleSet};

fn detections() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../detections")).to_owned()
}

#[tokio::test]
async fn the_rules_that_ship_load_and_have_tests() {
    let set = RuleSet::load(&detections(), &shipped_schemas(), "").await.unwrap_or_else(|errors| panic!("{errors}"));
    assert!(set.rules.len() >= 5 && set.states.len() >= 16);
    for rule in &set.rules {
        let path = rule.path.with_extension("test.yaml");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = TestFile::parse(&path, &text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(file.rule, rule.id);
    }
}

fn parse(text: &str) -> Result<TestFile, String> {
    TestFile::parse(Path::new("d/r.test.yaml"), text).map_err(|e| e.to_string())
}

const GOOD: &str = r#"
cases:
  - name: fires
    source: kubernetes
    cluster: prod
    events:
      - event: {auditID: "a{n}", stageTimestamp: "{time}", user: {username: al}, list: ["{n}", 1]}
        repeat: 2
        step: 5s
        at: 1m
      - json: '{"n":"{n}"}'
        source: cloudtrail
    expect:
      - entity: {who: al}
        values: {n: 2}
  - name: quiet
    source: falco
    cluster: prod
    events: [{json: '{}'}]
    fires: false
"#;

#[test]
fn test_files_unfold_into_raw_events() {
    let file = parse(GOOD).expect("a good file");
    let texts: Vec<_> = file.cases[0].events.iter().map(|e| String::from_utf8_lossy(&e.bytes).into_owned()).collect();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(value(&texts[0])["stageTimestamp"], "2026-01-01T00:01:00Z");
    assert_eq!(value(&texts[1])["stageTimestamp"], "2026-01-01T00:01:05Z");
    assert_eq!(value(&texts[1])["list"], serde_json::json!(["1", 1]));
    assert_eq!(texts[2], r#"{"n":"0"}"#);
    assert_eq!(file.cases[0].events[2].source, event::Source::CloudTrail);
    assert_eq!(file.cases[0].line, 3);
}

#[test]
fn mistakes_in_test_files_have_lines() {
    let check = |text: &str, expected: &str| {
        let error = parse(text).expect_err(text);
        assert!(error.contains(expected), "expected `{expected}` in:\n{error}");
    };
    check(&GOOD.replace("fires: false", "fire: false"), "d/r.test.yaml:");
    check(&GOOD.replace("fires: false", "fires: true"), "there is no case that does not fire");
    check(&GOOD.replace("source: falco", "source: falcon"), "d/r.test.yaml:19: case `quiet`: unknown source `falcon`");
    check(&GOOD.replace("[{json: '{}'}]", "[]"), "case `quiet` has no events");
    check(
        &GOOD.replace("cluster: prod\n    events:\n", "events:\n"),
        "d/r.test.yaml:6: case `fires`: events of kubernetes need",
    );
    check(&GOOD.replace("step: 5s", "step: five"), "`step: five` is not a span of time");
    check(&GOOD.replace("repeat: 2", "repeat: 20000"), "more than 10000");
    check(&GOOD.replace("    fires: false", "    fires: false\n    expect: []"), "exactly one of");
}

#[tokio::test]
async fn comparing_says_what_is_different() {
    let set = RuleSet::load(&detections(), &shipped_schemas(), "")
        .await
        .expect("the rules that ship")
        .only(&["k8s-pod-exec"]);
    let cells = |who: &str| {
        [
            ("stage", "ResponseStarted".into()),
            ("verb", "get".into()),
            ("objectref_resource", "pods".into()),
            ("objectref_subresource", "exec".into()),
            ("objectref_namespace", "shop".into()),
            ("objectref_name", "web".into()),
            ("actor_user_name", who.into()),
            ("response_code", 101.into()),
        ]
    };
    let rows: Vec<Row> = vec![row("kubernetes", START_DEFAULT, "x", &cells("al"))];
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let findings = engine.on_admitted(&admitted_as(&shipped_schemas(), &rows)).await.expect("evaluates").findings;
    assert_eq!(findings.len(), 1);
    let case = |expect: Expect| Case { name: "c".into(), line: 1, events: Vec::new(), expect };
    let wanted = |yaml: &str| Expect::Findings(serde_saphyr::from_str(yaml).expect("YAML"));
    let good = "[{entity: {actor_user_name: al, objectref_namespace: shop}, events: 1}]";
    assert_eq!(check(&case(wanted(good)), &findings), Ok(()));
    assert_eq!(check(&case(Expect::Fires(true)), &findings), Ok(()));
    let diff = check(&case(wanted(&good.replace("al", "bo"))), &findings).expect_err("another person").to_string();
    assert!(diff.contains("actor_user_name: expected bo, got al"), "{diff}");
    assert!(diff.contains("not expected: cluster=prod"), "{diff}");
    assert!(check(&case(Expect::Fires(false)), &findings).is_err());
    assert!(check(&case(wanted("[]")), &findings).is_err());
    assert!(check(&case(Expect::Fires(true)), &[]).is_err());
}

/// The numbers of the shipped windowed rules, on the edge.
#[tokio::test]
async fn a_burst_of_secret_reads_is_counted_by_name() {
    let reads = |names: i64, repeats: i64| -> Vec<Row> {
        (0..names * repeats)
            .map(|n| {
                row(
                    "kubernetes",
                    START_DEFAULT + n * 1_000_000,
                    &format!("u{n}"),
                    &[
                        ("stage", "ResponseComplete".into()),
                        ("verb", "get".into()),
                        ("objectref_resource", "secrets".into()),
                        ("objectref_namespace", "shop".into()),
                        ("objectref_name", format!("s{}", n % names).into()),
                        ("actor_user_name", "al".into()),
                        ("response_code", 200.into()),
                        ("status", "Success".into()),
                    ],
                )
            })
            .collect()
    };
    let set = RuleSet::load(&detections(), &shipped_schemas(), "").await.expect("the rules that ship");
    let set = set.only(&["k8s-secret-read-burst"]);
    for (names, repeats, expected) in [(9, 3, 0), (10, 1, 1), (10, 2, 1)] {
        let mut engine = Engine::new(set.clone(), Frontier::default(), &Watermarks::default());
        let store = Store::of_as(&shipped_schemas(), &reads(names, repeats));
        let found = engine.finish_bounded(Origin::Live, None, &store).await.expect("answers").findings;
        assert_eq!(found.len(), expected, "{names} names, {repeats} times");
    }
}
