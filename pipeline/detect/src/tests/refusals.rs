//! What is refused when rules are loaded, and what the author is told.

use crate::fixtures::{parse, rule_text};

async fn check(text: &str, expected: &[&str]) {
    let errors = parse(&[("d/rule.sql", text)]).await.err().unwrap_or_else(|| panic!("was not refused:\n{text}"));
    let shown = errors.to_string();
    for part in expected {
        assert!(shown.contains(part), "expected `{part}` in:\n{shown}\nof:\n{text}");
    }
}

#[tokio::test]
async fn headers_are_checked_key_by_key() {
    let sql = "SELECT cluster FROM kubernetes";
    let header = |lines: &str| format!("/*\n{lines}\n*/\n{sql}\n");
    check(sql, &["d/rule.sql:1: the rule has no header"]).await;
    check(&header("title: A"), &["d/rule.sql", "missing field"]).await;
    let text = rule_text("cluster", "titel: x", sql);
    check(&text, &["d/rule.sql:6", "unknown field", "titel"]).await;
    let text = rule_text("cluster", "attack: [T1552, TX, T1.2]", sql);
    check(&text, &["d/rule.sql:6: `TX` is not an ATT&CK technique", "`T1.2`"]).await;
    check(&rule_text("cluster", "window: 10", sql), &["d/rule.sql:6: `window: 10` is not a span of time"]).await;
    check(&rule_text("cluster", "window: 10m\nevery: 3m", sql), &["d/rule.sql:7: the window (10m) is not a multiple"])
        .await;
    check(&rule_text("cluster", "every: 3m", sql), &["`every` without `window`"]).await;
    check(&rule_text("cluster", "emit: early", sql), &["d/rule.sql:6: `emit: early` is not known", "`final` is"]).await;
    check(&rule_text("cluster", "suppress: soon", sql), &["`suppress: soon` is not a span"]).await;
    check(&rule_text("", "", sql), &["`entity` is empty"]).await;
    check(&header("title: A\nseverity: urgent\nentity: [cluster]\nsummary: x"), &[":3: `severity: urgent`"]).await;
}

#[tokio::test]
async fn columns_named_in_the_header_are_selected() {
    check(
        &rule_text("clustr", "", "SELECT cluster FROM kubernetes"),
        &["d/rule.sql:4: entity column `clustr` is not a column of the SELECT", "did you mean `cluster`?"],
    )
    .await;
    let text =
        "/*\ntitle: A\nseverity: low\nentity: [cluster]\nsummary: \"{who} did it\"\n*/\nSELECT cluster FROM kubernetes";
    check(text, &["d/rule.sql:5: `{who}` in the summary", "the SELECT returns cluster"]).await;
}

#[tokio::test]
async fn types_that_clash_point_into_the_file() {
    let of = |condition: &str| rule_text("cluster", "", &format!("SELECT cluster FROM kubernetes\nWHERE {condition}"));
    check(&of("response_code = 'Forbidden'"), &["d/rule.sql:9: `response_code` is a number, and `Forbidden` is none"])
        .await;
    let expected =
        ["d/rule.sql:9: `pod_privileged` is true or false, and `yes` is neither", "hint: write `pod_privile"];
    check(&of("pod_privileged = 'yes'"), &expected).await;
    check(&of("pod_privileged = 1"), &["d/rule.sql:9: `pod_privileged` is true or false, and `1` is neither"]).await;
}

#[tokio::test]
async fn mistakes_in_sql_point_into_the_file() {
    check(
        &rule_text("cluster", "", "SELECT cluster\nFROM kubernetes\nWHERE vreb = 'get' AND verbs = 1"),
        &["d/rule.sql:10: unknown column `vreb`"],
    )
    .await;
    check(
        &rule_text("cluster", "", "SELECT cluster FROM kubernetes_call"),
        &["d/rule.sql:8: unknown table `kubernetes_call`", "did you mean `kubernetes_calls`?"],
    )
    .await;
    check(&rule_text("cluster", "", "SELECT cluster FROM kubernetes WHERE )"), &["d/rule.sql:8: syntax error"]).await;
    check(&rule_text("cluster", "", "SELECT raw->'a' AS a, cluster FROM kubernetes"), &["column `a` cannot be shown"])
        .await;
    check(
        &rule_text("cluster", "", "SELECT cluster FROM falco WHERE cidr_match(src_endpoint_ip, '1.2/3')"),
        &["`1.2/3` is not an address block"],
    )
    .await;
}

#[tokio::test]
async fn rules_without_a_window_are_row_local() {
    let refused = [
        ("SELECT cluster FROM kubernetes GROUP BY cluster", "it aggregates"),
        ("SELECT DISTINCT cluster FROM kubernetes", "it has DISTINCT"),
        ("SELECT k.cluster FROM kubernetes k JOIN falco f ON k.cluster = f.cluster", "it joins"),
        ("SELECT cluster, row_number() OVER (ORDER BY time) AS n FROM kubernetes", "window function"),
        ("SELECT cluster FROM kubernetes ORDER BY time", "ORDER BY"),
        ("SELECT cluster FROM kubernetes ORDER BY time LIMIT 1", "LIMIT"),
        ("SELECT cluster FROM kubernetes UNION ALL SELECT cluster FROM kubernetes", "UNION"),
        ("SELECT cluster FROM kubernetes WHERE verb IN (SELECT verb FROM kubernetes)", "subquery"),
        ("SELECT cluster FROM kubernetes WHERE 1 = (SELECT count(*) FROM kubernetes)", "subquery"),
        ("SELECT 'x' AS cluster", "reads no table"),
    ];
    for (sql, reason) in refused {
        check(&rule_text("cluster", "", sql), &[reason]).await;
    }
}

#[tokio::test]
async fn rules_with_a_window_show_their_evidence_and_rest_on_rows() {
    let join = "SELECT k.cluster FROM kubernetes k JOIN falco f ON k.cluster = f.cluster";
    check(&rule_text("cluster", "window: 10m", join), &["cannot be derived: it joins tables", "AS evidence"]).await;
    let whole = "SELECT 'all' AS cluster, count(*) AS n FROM kubernetes HAVING count(*) < 3";
    check(&rule_text("cluster", "window: 10m", whole), &["fires on a window without any event"]).await;
    check(&rule_text("cluster", "window: 10m", "SELECT cluster FROM kubernetes WHERE time > now()"), &["`now()`"])
        .await;
}

#[tokio::test]
async fn rules_that_can_never_fire_are_refused() {
    let sql = "SELECT cluster FROM kubernetes WHERE verb = 'get' AND verb = 'list'";
    check(&rule_text("cluster", "", sql), &["can never fire"]).await;
    check(&rule_text("cluster", "window: 10m", sql), &["can never fire"]).await;
}

#[tokio::test]
async fn all_mistakes_of_all_files_are_reported_at_once() {
    let good = rule_text("cluster", "", "SELECT cluster FROM kubernetes");
    let bad = rule_text("clustr", "attack: [x]", "SELECT cluster FROM kubernets");
    let files = [("a/one.sql", bad.as_str()), ("b/two.sql", bad.as_str()), ("c/two.sql", good.as_str())];
    let errors = parse(&files).await.err().expect("refused");
    let shown = errors.to_string();
    for part in [
        "a/one.sql:6: `x` is not an ATT&CK technique",
        "a/one.sql:8: unknown table `kubernets`",
        "b/two.sql:8: unknown table",
        "c/two.sql: rule `two` is there twice: also in b/two.sql",
    ] {
        assert!(shown.contains(part), "expected `{part}` in:\n{shown}");
    }
}

#[tokio::test]
async fn the_bundle_is_of_everything_that_decides() {
    let one = rule_text("cluster", "", "SELECT cluster FROM kubernetes");
    let two = rule_text("cluster", "", "SELECT cluster FROM falco");
    let bundle = async |files: &[(&str, &str)]| parse(files).await.expect("good rules").bundle;
    let first = bundle(&[("a/x.sql", &one), ("a/y.sql", &two)]).await;
    assert_eq!(first, bundle(&[("b/y.sql", &two), ("b/x.sql", &one)]).await, "order and folder do not matter");
    assert_ne!(first, bundle(&[("a/x.sql", &two), ("a/y.sql", &one)]).await);
    assert_ne!(first, bundle(&[("a/x.sql", &one)]).await);
}
