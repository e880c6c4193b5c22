//! Single-event rules: every row is a finding, whatever batch it comes in.

use event::{Frontier, OffsetRange, Origin, Watermarks};

use crate::fixtures::{Row, Store, admitted, row, rule_text, rules};
use crate::{Engine, History};

const S: i64 = 1_000_000;

async fn engine(sql: &str, entity: &str) -> Engine {
    let rule = rule_text(entity, "", sql);
    Engine::new(rules(&[("d/rule.sql", &rule)]).await, Frontier::default(), &Watermarks::default())
}

fn exec(uid: &str, time: i64, who: &str) -> Row {
    row(
        "kubernetes",
        time,
        uid,
        &[
            ("stage", "ResponseStarted".into()),
            ("verb", "get".into()),
            ("objectref_subresource", "exec".into()),
            ("actor_user_name", who.into()),
        ],
    )
}

/// Uids of the events found, in order.
async fn check(sql: &str, rows: &[Row], expected: &[&str]) {
    let output = engine(sql, "actor_user_name").await.on_admitted(&admitted(rows)).await.expect("evaluates");
    let got: Vec<_> = output.findings.iter().map(|f| f.evidence.events[0].event_uid.as_str()).collect();
    assert_eq!(got, expected, "{sql}");
}

#[tokio::test]
async fn rows_that_the_select_returns_are_findings() {
    let rows = [exec("a", S, "alice"), exec("b", 2 * S, "bob"), exec("c", 3 * S, "alice")];
    check("SELECT actor_user_name FROM kubernetes WHERE actor_user_name = 'alice'", &rows, &["a", "c"]).await;
    check("SELECT actor_user_name FROM kubernetes_calls WHERE verb = 'get'", &rows, &["a", "b", "c"]).await;
    check("SELECT e.actor_user_name FROM events e WHERE e.actor_user_name LIKE 'b%'", &rows, &["b"]).await;
    check("SELECT upper(actor_user_name) AS actor_user_name FROM kubernetes WHERE raw->>'uid' = 'b'", &rows, &["b"])
        .await;
    check(
        "SELECT actor_user_name FROM (SELECT * FROM kubernetes WHERE verb = 'get') WHERE actor_user_name > 'alice'",
        &rows,
        &["b"],
    )
    .await;
    check("SELECT 'all' AS actor_user_name FROM kubernetes", &rows, &["a", "b", "c"]).await;
    check("SELECT actor_user_name FROM falco", &rows, &[]).await;
}

#[tokio::test]
async fn views_hold_for_single_rows_too() {
    let mut finished = exec("late", S, "alice");
    finished.cells.insert("stage".into(), "ResponseComplete".into());
    check("SELECT actor_user_name FROM kubernetes_calls", &[exec("a", S, "alice"), finished], &["a"]).await;
    let cloud = row("cloudtrail", S, "c", &[("actor_user_name", "alice".into())]);
    let shell = row("falco", S, "f", &[("actor_user_name", "alice".into())]);
    check("SELECT actor_user_name FROM events", &[exec("a", S, "alice"), cloud, shell], &["a", "c", "f"]).await;
}

#[tokio::test]
async fn a_null_entity_is_not_a_finding() {
    let nobody = row("kubernetes", S, "n", &[]);
    check("SELECT actor_user_name FROM kubernetes", &[nobody, exec("a", S, "alice")], &["a"]).await;
}

#[tokio::test]
async fn one_odd_value_does_not_hide_its_neighbours() {
    let rows: Vec<Row> = ["1", "2", "x", "4"].iter().map(|n| exec(n, S, n)).collect();
    check("SELECT actor_user_name FROM kubernetes WHERE CAST(actor_user_name AS INT) > 1", &rows, &["2", "4"]).await;
}

#[tokio::test]
async fn findings_do_not_depend_on_batches() {
    let sql = "SELECT actor_user_name, time FROM kubernetes WHERE verb = 'get'";
    let rows: Vec<Row> =
        (0..50).map(|n| exec(&format!("u{n}"), n * S, if n % 3 == 0 { "alice" } else { "bob" })).collect();
    let whole = engine(sql, "actor_user_name").await.on_admitted(&admitted(&rows)).await.expect("evaluates").findings;
    for size in [1, 7, 49] {
        let mut engine = engine(sql, "actor_user_name").await;
        let mut split = Vec::new();
        for chunk in rows.chunks(size) {
            split.extend(engine.on_admitted(&admitted(chunk)).await.expect("evaluates").findings);
        }
        assert_eq!(split, whole, "batches of {size}");
    }
    let ids: std::collections::BTreeSet<_> = whole.iter().map(|f| &f.id).collect();
    assert_eq!(ids.len(), 50);
}

#[tokio::test]
async fn a_finding_says_what_happened_and_how_to_see_it() {
    let text = "/*\ntitle: T\nseverity: high\nattack: [T1609]\nentity: [who]\nsummary: \"{who} used {verb}\"\n*/\n\
                SELECT actor_user_name AS who, verb, time FROM kubernetes_calls";
    let rows = [exec("it's", S, "alice"), exec("b", S, "bob")];
    let mut engine = Engine::new(rules(&[("d/rule.sql", text)]).await, Frontier::default(), &Watermarks::default());
    let finding = engine.on_admitted(&admitted(&rows)).await.expect("evaluates").findings.remove(0);
    assert_eq!(finding.summary, "alice used get");
    assert_eq!(finding.entity, [("who".to_owned(), "alice".to_owned())]);
    assert_eq!(finding.values["time"], "1970-01-01T00:00:01Z");
    assert_eq!((finding.origin, finding.tables.as_slice()), (Origin::Live, ["kubernetes".to_owned()].as_slice()));
    assert_eq!(finding.suppress_us, 3_600 * S);
    let found = hunt(&Store::of(&rows), &finding.evidence.query).await;
    assert_eq!(found, ["it's"]);
}

/// Uids that a query typed into a hunt returns.
pub async fn hunt(store: &Store, sql: &str) -> Vec<String> {
    let ctx = query::session(&query::Limits::HUNT);
    query::register_tables(&ctx, &crate::fixtures::schemas(), &|name| store.table(name)).expect("tables register");
    let plan = query::plan_hunt(&ctx, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let frame = ctx.execute_logical_plan(plan).await.expect("plans");
    let batches = frame.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let uid =
        |b: &arrow::array::RecordBatch, row| crate::evidence::text_of(b, "event_uid", row).expect("uid").to_owned();
    batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| uid(b, row))).collect()
}

#[tokio::test]
async fn the_frontier_follows_ranges_and_rows() {
    let sql = "SELECT actor_user_name FROM kubernetes";
    let mut live = admitted(&[exec("a", S, "alice")]);
    live.ranges.push(&"kubernetes-audit".into(), 0, OffsetRange { from: 0, next: 5 }).expect("first range");
    let mut imported = exec("i", S, "alice");
    imported.cells.insert("topic".into(), "file:x".into());
    imported.cells.insert("offset".into(), 41.into());
    let mut engine = engine(sql, "actor_user_name").await;
    engine.on_admitted(&live).await.expect("evaluates");
    engine.on_admitted(&admitted(&[imported])).await.expect("evaluates");
    assert_eq!(engine.frontier().offsets[&("kubernetes-audit".into(), 0)], 5);
    assert_eq!(engine.frontier().offsets[&("file:x".into(), 0)], 42);
}

#[tokio::test]
async fn stored_rows_past_the_frontier_are_caught_up_once() {
    let sql = "SELECT actor_user_name FROM kubernetes";
    let mut rows: Vec<Row> = (0..6).map(|n| exec(&format!("u{n}"), n * S, "alice")).collect();
    for (n, row) in rows.iter_mut().enumerate() {
        row.cells.insert("offset".into(), (n as i64).into());
    }
    rows[5].cells.insert("topic".into(), "other".into());
    let store = Store::of(&rows);
    let mut engine = engine(sql, "actor_user_name").await;
    let before = engine.on_admitted(&admitted(&rows[..3])).await.expect("evaluates").findings;
    let caught = engine.catch_up(&store).await.expect("the store answers");
    let mut uids: Vec<_> = caught.findings.iter().map(|f| f.evidence.events[0].event_uid.clone()).collect();
    uids.sort();
    assert_eq!(uids, ["u3", "u4", "u5"]);
    assert_eq!(caught.frontier.offsets[&("kubernetes-audit".into(), 0)], 5);
    assert!(engine.catch_up(&store).await.expect("the store answers").findings.is_empty());
    let mut whole = self::engine(sql, "actor_user_name").await;
    let all = whole.catch_up(&store).await.expect("the store answers").findings;
    assert!(before.iter().all(|f| all.contains(f)), "the same findings either way");
}
