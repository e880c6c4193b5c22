//! Each lint by rules that show it and rules that come near.

use std::sync::Arc;

use event::{AuditLevel, Column, TableSchema};

use super::{Grade, lint_rule};
use crate::fixtures::{self, rule_text};
use crate::ruleset::RuleSet;

/// The fixtures' tables, with what schema files can say beside the types.
fn schemas() -> Vec<Arc<TableSchema>> {
    let values = |name: &str| -> Vec<String> {
        let values: &[&str] = match name {
            "verb" => &["get", "list", "create", "delete"],
            "status" => &["Success", "Failure"],
            _ => &[],
        };
        values.iter().map(|v| (*v).to_owned()).collect()
    };
    let level = |name: &str| (name == "pod_privileged").then_some(AuditLevel::Request);
    let richer = |c: &Column| Column { values: values(&c.name), level: level(&c.name), ..c.clone() };
    let table = |s: &Arc<TableSchema>| {
        Arc::new(TableSchema::new(s.name.clone(), s.doc.clone(), s.columns.iter().map(richer).collect()))
    };
    fixtures::schemas().iter().map(table).collect()
}

/// `triage` is there unless the header says otherwise.
async fn check(header: &str, sql: &str, expected: &[(Grade, u64, &str, &str)]) {
    let header = if header.contains("triage") { header.to_owned() } else { format!("triage: look\n{header}") };
    let text = rule_text("cluster", header.trim(), sql);
    let files = [("d/rule.sql".into(), text.clone())];
    let rules = RuleSet::parse(&files, &schemas(), "fixtures").await.unwrap_or_else(|e| panic!("{e}\nof:\n{text}"));
    let first_sql_line = text[..text.find("*/").expect("a header")].matches('\n').count() as u64 + 2;
    let lints = lint_rule(&rules.rules[0], &rules.schemas);
    let shown: Vec<String> = lints.iter().map(ToString::to_string).collect();
    assert_eq!(lints.len(), expected.len(), "{shown:#?}\nof:\n{text}");
    for (lint, (grade, line, message, hint)) in lints.iter().zip(expected) {
        // Lines of the SELECT count from its first; 0 stands for the header.
        let line = if *line == 0 { 1 } else { first_sql_line + line - 1 };
        assert_eq!((lint.grade, lint.problem.line), (*grade, line), "{shown:#?}\nof:\n{text}");
        assert!(lint.problem.message.contains(message), "expected `{message}` in {shown:#?}");
        assert!(lint.problem.hint.as_deref().unwrap_or_default().contains(hint), "expected `{hint}` in {shown:#?}");
    }
}

use Grade::{Error, Warning};

#[tokio::test]
async fn values_that_never_occur() {
    let never = |line, what, hint| (Error, line, what, hint);
    let sql = "SELECT cluster FROM kubernetes\nWHERE verb = 'Create'";
    check("", sql, &[never(2, "`verb` is never `Create`", "did you mean `create`?")]).await;
    let sql = "SELECT cluster FROM kubernetes\nWHERE verb IN ('get',\n 'lst')";
    check("", sql, &[never(3, "`verb` is never `lst`", "did you mean `list`?")]).await;
    let sql = "SELECT cluster FROM kubernetes WHERE 'impersonate' = verb";
    check("", sql, &[never(1, "`verb` is never `impersonate`", "it is one of get, list, create, delete")]).await;
    let sql = "SELECT cluster, CASE verb WHEN 'GET' THEN 1 END AS x FROM kubernetes";
    check("", sql, &[never(1, "never `GET`", "`get`")]).await;
    // Through aliases, views, WITH and derived tables.
    let sql = "SELECT k.cluster FROM kubernetes_calls k WHERE k.verb = 'Get'";
    check("", sql, &[never(1, "never `Get`", "`get`")]).await;
    let sql = "SELECT cluster FROM events WHERE status = 'failure'";
    check("", sql, &[never(1, "`status` is never `failure`", "`Failure`")]).await;
    let sql = "WITH x AS (SELECT cluster, verb AS v FROM kubernetes)\nSELECT cluster FROM x WHERE v = 'Get'";
    check("", sql, &[never(2, "`verb` is never `Get`", "`get`")]).await;
    let sql = "SELECT cluster FROM (SELECT * FROM kubernetes) AS t WHERE verb = 'Get'";
    check("", sql, &[never(1, "never `Get`", "")]).await;
    // A computed column is another one, whatever its name.
    let sql = "SELECT cluster FROM (SELECT cluster, upper(verb) AS verb FROM kubernetes) AS t WHERE verb = 'GET'";
    check("", sql, &[]).await;
    check("", "SELECT cluster FROM kubernetes WHERE verb = 'get' AND objectref_name = 'Get'", &[]).await;
}

#[tokio::test]
async fn types_and_cases_that_clash() {
    let sql = "SELECT cluster FROM kubernetes WHERE verb = 'get' AND objectref_name = 403";
    check("", sql, &[(Warning, 1, "`objectref_name` is text, and 403 is a number", "'403'")]).await;
    check("", "SELECT cluster FROM kubernetes WHERE response_code = '403'", &[]).await;
    let sql = "SELECT cluster FROM kubernetes\nWHERE lower(objectref_name) = 'Admin'";
    check("", sql, &[(Error, 2, "`lower(objectref_name)` is never `Admin`", "`admin`")]).await;
    check("", "SELECT cluster FROM kubernetes WHERE lower(objectref_name) = 'admin'", &[]).await;
}

#[tokio::test]
async fn conditions_that_are_unknown_for_null() {
    let left_out = |line, what| (Warning, line, what, "IS DISTINCT FROM");
    let of = |condition: &str| format!("SELECT cluster FROM kubernetes WHERE {condition}");
    let sql = of("objectref_name <> 'a'");
    check("", &sql, &[left_out(1, "`<>` leaves out the rows in which `objectref_name` is NULL")]).await;
    check("", &of("NOT (objectref_name = 'a')"), &[left_out(1, "`NOT`")]).await;
    check("", &of("verb = 'get'\nAND objectref_name NOT IN ('a', 'b')"), &[left_out(2, "`NOT IN`")]).await;
    check("", &of("objectref_name NOT LIKE 'kube-%'"), &[left_out(1, "`NOT LIKE`")]).await;
    // Thought of, or of no consequence.
    check("", &of("coalesce(objectref_name, '') <> 'a'"), &[]).await;
    check("", &of("objectref_name IS DISTINCT FROM 'a'"), &[]).await;
    check("", &of("objectref_name <> 'a' AND objectref_name IS NOT NULL"), &[]).await;
    check("", &of("(objectref_name <> 'a' OR objectref_name IS NULL)"), &[]).await;
    check("", &of("objectref_name LIKE 'x%' AND objectref_name <> 'xa'"), &[]).await;
    check("", &of("cluster <> 'prod'"), &[]).await;
    check("", &of("event_uid <> 'a'"), &[]).await;
}

#[tokio::test]
async fn audit_levels() {
    let needs = |line, what| (Warning, line, what, "add `needs_level: Request");
    let sql = "SELECT cluster FROM kubernetes\nWHERE raw->'requestObject'->>'kind' = 'Pod'";
    check("", sql, &[needs(2, "`requestObject` is null below the audit level Request")]).await;
    check("needs_level: Metadata", sql, &[needs(2, "`requestObject`")]).await;
    check("needs_level: Request", sql, &[]).await;
    let sql = "SELECT cluster FROM kubernetes WHERE json_get_str(raw, 'responseObject', 'kind') = 'Pod'";
    check("needs_level: Request", sql, &[needs(1, "`responseObject` is null below the audit level RequestResponse")])
        .await;
    check("needs_level: RequestResponse", sql, &[]).await;
    let sql = "SELECT cluster FROM kubernetes WHERE verb = 'get'";
    check("needs_level: Requests", sql, &[(Error, 0, "`needs_level: Requests` is no audit level", "`Request`")]).await;
    check("", "SELECT cluster FROM kubernetes WHERE raw->>'requestURI' = '/'", &[]).await;
    let sql = "SELECT k.cluster FROM kubernetes_calls k WHERE k.pod_privileged";
    check("needs_level: Metadata", sql, &[needs(1, "`pod_privileged` is null below the audit level Request")]).await;
}

#[tokio::test]
async fn windows_hold_what_a_join_wants() {
    let joined = |condition: &str| {
        format!(
            "SELECT a.cluster, array_agg(a.event_uid) AS evidence\nFROM kubernetes a JOIN kubernetes b\n\
             ON a.cluster = b.cluster AND {condition} GROUP BY a.cluster"
        )
    };
    let narrow = |what, hint| (Warning, 3, what, hint);
    let five = "b.time BETWEEN a.time AND a.time + INTERVAL '5 minutes'";
    check("window: 6m\nevery: 1m", &joined(five), &[]).await;
    let expected = narrow("rows up to 5m apart are joined, but a window of 5m every 1m", "`window: 6m`");
    check("window: 5m\nevery: 1m", &joined(five), &[expected]).await;
    let other = "b.time > a.time AND b.time - a.time <= INTERVAL '1 hour 30 minutes'";
    check("window: 90m\nevery: 5m", &joined(other), &[narrow("rows up to 90m apart", "`window: 95m`")]).await;
    check("window: 2h\nevery: 10m", &joined(other), &[]).await;
    // Bounds on both sides: ten minutes between a and the later of them.
    let both = "b.time >= a.time - INTERVAL '5' MINUTE AND b.time < a.time + INTERVAL '10' MINUTE";
    check("window: 10m\nevery: 1m", &joined(both), &[narrow("up to 10m apart", "`window: 11m`")]).await;
    // Nothing is said of how far apart they may be.
    check("window: 5m\nevery: 1m", &joined("b.time > a.time"), &[]).await;
}

#[tokio::test]
async fn distances_add_up_along_a_chain() {
    let sql = "SELECT a.cluster, array_agg(a.event_uid) AS evidence FROM kubernetes a\n\
               JOIN kubernetes b ON b.cluster = a.cluster AND b.time BETWEEN a.time AND a.time + INTERVAL '5 minutes'\n\
               JOIN kubernetes c ON c.cluster = a.cluster AND c.time BETWEEN b.time AND b.time + INTERVAL '5 minutes'\n\
               GROUP BY a.cluster";
    check("window: 10m\nevery: 1m", sql, &[(Warning, 3, "rows up to 10m apart", "`window: 11m`")]).await;
    check("window: 11m\nevery: 1m", sql, &[]).await;
}

#[tokio::test]
async fn headers() {
    let sql = "SELECT cluster, count(*) AS n FROM kubernetes GROUP BY cluster HAVING count(*) > 5";
    check("window: 10m\nevery: 10m", sql, &[(Warning, 0, "no burst is sure to be in one window", "`every: 1m`")]).await;
    check("window: 10m\nevery: 5m", sql, &[]).await;
    check("triage: ' '\nwindow: 10m", sql, &[(Warning, 0, "no `triage`", "what whoever is called")]).await;
}

#[tokio::test]
async fn what_the_set_warns_of_comes_along() {
    let text = rule_text("cluster", "triage: look", "SELECT cluster FROM kubernetes WHERE verb = 'get'");
    let mut rules = fixtures::rules(&[("d/rule.sql", &text)]).await;
    rules.warnings.push(crate::RuleProblem {
        path: "d/tuning.yaml".into(),
        line: 4,
        message: "the entry has expired".into(),
        hint: None,
    });
    let shown: Vec<String> = super::lint(&rules).iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["d/tuning.yaml:4: warning: the entry has expired"]);
}
