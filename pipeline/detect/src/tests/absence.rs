//! Rules that look for what is not there: which relations they speak about, and that they keep quiet while those are silent.

use event::{Frontier, Origin, Watermarks};

use crate::fixtures::{Cell, Row, Store, row, rule_text, rules};
use crate::{Engine, RuleSet};

const S: i64 = 1_000_000;
const DAY: i64 = 20_000 * 86_400 * S;

async fn rule(sql: &str) -> RuleSet {
    rules(&[("d/rule.sql", &rule_text("cluster, k8s_pod_name", "window: 10s\nevery: 2s", sql))]).await
}

async fn absent(sql: &str) -> Vec<String> {
    rule(sql).await.rules[0].explanation().expect("it has a window").absent
}

const JOINED: &str = "SELECT a.cluster, a.k8s_pod_name, array_agg(a.event_uid) AS evidence FROM falco a \
                      LEFT JOIN kubernetes b ON a.cluster = b.cluster AND a.k8s_pod_name = b.objectref_name";

#[tokio::test]
async fn what_a_rule_takes_to_be_absent_is_read_from_its_plan() {
    let grouped = "GROUP BY a.cluster, a.k8s_pod_name";
    let on = "b.cluster = a.cluster AND b.objectref_name = a.k8s_pod_name";
    let one = "SELECT a.cluster, a.k8s_pod_name, a.event_uid AS evidence FROM falco a";
    for (sql, expected) in [
        (format!("{JOINED} WHERE b.event_uid IS NULL {grouped}"), "kubernetes"),
        (format!("{JOINED} {grouped} HAVING count(b.event_uid) = 0"), "kubernetes"),
        (format!("{JOINED} {grouped} HAVING count(b.event_uid) < 2"), "kubernetes"),
        (format!("{JOINED} {grouped} HAVING 1 > count(b.event_uid)"), "kubernetes"),
        (format!("{one} WHERE NOT EXISTS (SELECT 1 FROM kubernetes_calls b WHERE {on})"), "kubernetes_calls"),
        (
            format!(
                "{one} WHERE a.rule = 'r' OR NOT EXISTS (SELECT 1 FROM kubernetes b WHERE {on} AND b.verb = 'get')"
            ),
            "kubernetes",
        ),
        (format!("{one} WHERE a.k8s_pod_name NOT IN (SELECT objectref_name FROM kubernetes)"), "kubernetes"),
        (
            format!(
                "WITH seen AS (SELECT cluster, objectref_name AS name, max(time) AS last FROM kubernetes GROUP BY 1, 2) \
                 {one} LEFT JOIN seen s ON s.cluster = a.cluster AND s.name = a.k8s_pod_name WHERE s.last IS NULL"
            ),
            "kubernetes",
        ),
        // What only adds to a finding may be missing at any time.
        (format!("{JOINED} {grouped}"), ""),
        (format!("{JOINED} {grouped} HAVING count(b.event_uid) >= 1"), ""),
        (format!("{one} WHERE EXISTS (SELECT 1 FROM kubernetes b WHERE {on})"), ""),
        (format!("{one} JOIN kubernetes b ON {on} WHERE b.verb IS NULL"), ""),
        // Where the rule finds something, its relation speaks.
        (
            format!(
                "{one} WHERE NOT EXISTS (SELECT 1 FROM falco b WHERE b.k8s_pod_name = a.k8s_pod_name AND b.rule = 'x')"
            ),
            "",
        ),
    ] {
        assert_eq!(absent(&sql).await.join(","), expected, "{sql}");
    }
}

fn alert(at: i64, pod: &str) -> Row {
    row("falco", DAY + at * S, &format!("alert-{pod}-{at}"), &[("k8s_pod_name", pod.into())])
}

fn call(at: i64, object: &str, stamp: Option<i64>) -> Row {
    let mut cells: Vec<(&str, Cell)> = vec![("objectref_name", object.into()), ("verb", "get".into())];
    cells.extend(stamp.map(|stamp| ("source_watermark", (DAY + stamp * S).into())));
    row("kubernetes", DAY + at * S, &format!("call-{object}-{at}"), &cells)
}

async fn found(rows: &[Row]) -> Vec<(i64, i64, bool)> {
    let sql = format!("{JOINED} WHERE b.event_uid IS NULL GROUP BY a.cluster, a.k8s_pod_name");
    let mut engine = Engine::new(rule(&sql).await, Frontier::default(), &Watermarks::default());
    let output = engine.finish_bounded(Origin::Live, None, &Store::of(rows)).await.expect("the store answers");
    let seconds = |time: i64| (time - DAY) / S;
    output.findings.iter().map(|f| (seconds(f.time.first()), seconds(f.time.last()), f.late)).collect()
}

#[tokio::test]
async fn nothing_is_absent_from_a_silent_source() {
    // No call at all: that the pod has none says nothing.
    assert_eq!(found(&[alert(10, "a")]).await, []);
    assert_eq!(found(&[alert(10, "a"), call(30, "b", None)]).await, []);
    // Boundaries 12 to 20 see the alert, 6 to 14 and 16 to 24 the calls.
    assert_eq!(found(&[alert(10, "a"), call(4, "b", None)]).await, [(12, 14, false)]);
    assert_eq!(found(&[alert(10, "a"), call(14, "b", None)]).await, [(16, 20, false)]);
    assert_eq!(found(&[alert(10, "a"), call(4, "b", None), call(14, "b", None)]).await, [(12, 20, false)]);
    // A call of its own, and it is not absent.
    assert_eq!(found(&[alert(10, "a"), call(10, "a", None)]).await, []);
    assert_eq!(found(&[alert(10, "a"), call(14, "a", None), call(4, "b", None)]).await, [(12, 14, false)]);
}

#[tokio::test]
async fn a_late_word_of_the_source_ends_its_silence_late() {
    // Known from 16 on; the boundaries 12 and 14 were silent when they were final.
    let late = call(11, "b", Some(15));
    assert_eq!(found(&[alert(10, "a"), late.clone()]).await, [(16, 20, false), (12, 14, true)]);
    // Had something else spoken, it adds nothing.
    assert_eq!(found(&[alert(10, "a"), late, call(4, "c", None)]).await, [(12, 20, false)]);
}
