//! Windowed rules: edges, runs, restarts, and the walk against the oracle.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use event::{Finding, FindingTime, Frontier, Origin, Source, Watermarks};

use super::single::hunt;
use crate::fixtures::{Cell, Row, Store, row, rule_text, rules, schemas};
use crate::rule::Body;
use crate::runs::OpenRuns;
use crate::{Engine, History, RuleSet, oracle};

const S: i64 = 1_000_000;
/// Any day; a multiple of every slide in use here.
const DAY: i64 = 20_000 * 86_400 * S;

const COUNT: &str = "SELECT cluster, actor_user_name, count(*) AS n, count(DISTINCT objectref_name) AS names \
                     FROM kubernetes_calls k WHERE k.verb = 'get' \
                     GROUP BY cluster, actor_user_name HAVING count(*) >= 2";

async fn counting(window: &str, every: &str) -> RuleSet {
    let header = format!("window: {window}\nevery: {every}");
    rules(&[("d/rule.sql", &rule_text("cluster, actor_user_name", &header, COUNT))]).await
}

fn get(at: i64, uid: &str, who: &str) -> Row {
    row(
        "kubernetes",
        DAY + at,
        uid,
        &[
            ("stage", "ResponseComplete".into()),
            ("verb", "get".into()),
            ("actor_user_name", who.into()),
            ("objectref_name", uid.into()),
        ],
    )
}

fn with(mut row: Row, cells: &[(&str, Cell)]) -> Row {
    for (name, cell) in cells {
        row.cells.insert(name.to_string(), cell.clone());
    }
    row
}

/// (entity, first, last) relative to the day, in seconds.
fn runs(findings: &[Finding]) -> Vec<(String, i64, i64)> {
    let mut last: BTreeMap<&str, &Finding> = BTreeMap::new();
    last.extend(findings.iter().map(|f| (f.id.as_str(), f)));
    let mut runs: Vec<_> = last
        .values()
        .map(|f| (f.entity.last().expect("an entity").1.clone(), (f.time.first() - DAY) / S, (f.time.last() - DAY) / S))
        .collect();
    runs.sort();
    runs
}

async fn finish(rules: RuleSet, rows: &[Row], origin: Origin) -> Vec<Finding> {
    let mut engine = Engine::new(rules, Frontier::default(), &Watermarks::default());
    engine.finish_bounded(origin, None, &Store::of(rows)).await.expect("the store answers").findings
}

async fn check(rows: &[Row], expected: &[(&str, i64, i64)]) {
    let findings = finish(counting("10s", "2s").await, rows, Origin::Live).await;
    let expected: Vec<_> = expected.iter().map(|(who, first, last)| (who.to_string(), *first, *last)).collect();
    assert_eq!(runs(&findings), expected);
}

#[tokio::test]
async fn a_window_has_its_first_instant_and_not_its_last() {
    // An event on a boundary is seen by the next; at b-W it is still seen, one microsecond earlier no more.
    check(&[get(10 * S, "a", "al"), get(10 * S, "b", "al")], &[("al", 12, 20)]).await;
    check(&[get(10 * S - 1, "a", "al"), get(10 * S - 1, "b", "al")], &[("al", 10, 18)]).await;
    check(&[get(10 * S, "a", "al"), get(20 * S - 1, "b", "al")], &[("al", 20, 20)]).await;
    check(&[get(10 * S, "a", "al"), get(20 * S, "b", "al")], &[]).await;
    check(&[get(10 * S - 1, "a", "al"), get(20 * S - 1, "b", "al")], &[]).await;
}

#[tokio::test]
async fn a_window_of_one_slide_tumbles() {
    let rows = [get(S, "a", "al"), get(9 * S, "b", "al"), get(10 * S, "c", "al"), get(19 * S, "d", "al")];
    let findings = finish(counting("10s", "10s").await, &rows, Origin::Live).await;
    assert_eq!(runs(&findings), [("al".to_owned(), 10, 20)]);
}

#[tokio::test]
async fn a_gap_parts_two_findings() {
    let rows = [get(S, "a", "al"), get(S, "b", "al"), get(40 * S, "c", "al"), get(40 * S, "d", "al")];
    check(&rows, &[("al", 2, 10), ("al", 42, 50)]).await;
}

#[tokio::test]
async fn null_entities_other_verbs_and_other_origins_do_not_count() {
    let nobody = |uid: &str| {
        let mut row = get(S, uid, "x");
        row.cells.remove("actor_user_name");
        row
    };
    check(&[nobody("a"), nobody("b"), nobody("c")], &[]).await;
    check(&[get(S, "a", "al"), with(get(S, "b", "al"), &[("verb", "list".into())])], &[]).await;
    check(&[get(S, "a", "al"), with(get(S, "b", "al"), &[("stage", "RequestReceived".into())])], &[]).await;
    check(&[get(S, "a", "al"), with(get(S, "b", "al"), &[("origin", "import".into())])], &[]).await;
}

#[tokio::test]
async fn a_row_is_seen_by_boundaries_after_its_watermark() {
    let late = |mark: i64| with(get(10 * S, "b", "al"), &[("source_watermark", (DAY + mark).into())]);
    check(&[get(10 * S, "a", "al"), late(16 * S - 1)], &[("al", 16, 20)]).await;
    check(&[get(10 * S, "a", "al"), late(16 * S)], &[("al", 18, 20)]).await;
    check(&[get(10 * S, "a", "al"), late(20 * S)], &[]).await;
}

#[tokio::test]
async fn imports_have_windows_of_their_own() {
    let import =
        |uid: &str| with(get(S, uid, "al"), &[("origin", "import".into()), ("source_watermark", i64::MIN.into())]);
    let rows = [import("a"), import("b"), get(S, "c", "al"), get(S, "d", "al")];
    let live = finish(counting("10s", "2s").await, &rows, Origin::Live).await;
    let imported = finish(counting("10s", "2s").await, &rows, Origin::Import).await;
    assert_eq!((live[0].evidence.count, imported[0].evidence.count), (2, 2));
    assert_eq!(runs(&live), runs(&imported));
    assert_ne!(live[0].id, imported[0].id);
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let range = Some((DAY + S, DAY + S));
    let ranged = engine.finish_bounded(Origin::Import, range, &Store::of(&rows)).await.expect("answers").findings;
    assert_eq!(ranged, imported);
}

fn marks(at: i64) -> Watermarks {
    let mut marks = Watermarks::default();
    marks.advance(Source::Kubernetes, DAY + at);
    marks
}

/// Rows of several people over some minutes with gaps, some late. The watermark of a row is that of the rows
/// before it, as admission stamps it.
fn random_rows(seed: u64, count: usize) -> Vec<Row> {
    let mut state = seed;
    let mut random = |below: u64| {
        // xorshift64*: a fixed sequence per seed.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    };
    let (mut now, mut mark) = (0i64, 0i64);
    let mut rows = Vec::new();
    for n in 0..count {
        now += if random(12) == 0 { 30 * S } else { random(2_500_000) as i64 };
        let time = (now - if random(5) == 0 { random(15_000_000) as i64 } else { 0 }).max(0);
        let who = ["al", "bo", "cy"][random(3) as usize];
        rows.push(with(get(time, &format!("u{n}"), who), &[("source_watermark", (DAY + mark).into())]));
        mark = mark.max(time - 2 * S);
    }
    rows
}

fn mark_after(rows: &[Row]) -> i64 {
    let time = |r: &Row| if let Cell::Number(n) = r.cells["time"] { n - DAY } else { 0 };
    rows.iter().map(|r| time(r) - 2 * S).max().unwrap_or(0).max(0)
}

#[tokio::test]
async fn live_in_any_commits_and_restarts_is_the_naive_evaluation() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    for seed in [7, 99, now.as_nanos() as u64 | 1] {
        println!("seed {seed}");
        let rows = random_rows(seed, 120);
        let rules = counting("10s", "2s").await;
        let expected = naive(&rules, &rows).await;
        assert!(!expected.is_empty());
        for commit in [1, 13, 120] {
            let mut store = Store::default();
            let mut engine = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
            let (mut findings, mut frontier) = (Vec::new(), engine.frontier().clone());
            for (n, chunk) in rows.chunks(commit).enumerate() {
                store.add(chunk);
                let seen = &rows[..(n * commit + chunk.len())];
                let output = engine.on_commit(&marks(mark_after(seen)), &store).await.expect("the store answers");
                findings.extend(output.findings);
                frontier.advance(&output.frontier);
                if n % 3 == 2 {
                    engine = Engine::new(rules.clone(), frontier.clone(), &marks(mark_after(seen)));
                }
            }
            let output = engine.on_commit(&marks(1_000_000 * S), &store).await.expect("the store answers");
            assert!(!output.pending);
            findings.extend(output.findings);
            assert_eq!(last_told(&findings), expected, "seed {seed}, commits of {commit}");
        }
        let bounded = finish(rules.clone(), &rows, Origin::Live).await;
        assert_eq!(last_told(&bounded), expected, "seed {seed}, bounded");
    }
}

/// What of each finding must not depend on how it came about.
type Told = BTreeMap<String, (FindingTime, String, u64)>;

fn last_told(findings: &[Finding]) -> Told {
    let told = |f: &Finding| (f.time, serde_json::Value::from(f.values.clone()).to_string(), f.evidence.count);
    findings.iter().map(|f| (f.id.clone(), told(f))).collect()
}

/// The oracle at every boundary of the day's first hours over everything stored, with nothing left out.
async fn naive(rules: &RuleSet, rows: &[Row]) -> Told {
    let store = Store::of(rows);
    let stored = query::fork(&rules.base);
    query::register_tables(&stored, &schemas(), &|name| store.table(name)).expect("tables register");
    let rule = rules.rules[0].clone();
    let window = rule.window.expect("a windowed rule");
    let view: Arc<dyn TableProvider> = stored.table_provider("kubernetes_calls").await.expect("is registered");
    let (mut open, mut touched) = (OpenRuns::default(), BTreeMap::new());
    let end = DAY + mark_after(rows) + 60 * S;
    let mut boundary = DAY;
    while boundary <= end {
        let answer = oracle::evaluate(&rules.base, &rule, window, boundary, Origin::Live, &|_| view.clone()).await;
        open.step(boundary, window.every_us, answer.expect("evaluates").held, &mut touched);
        boundary += window.every_us;
    }
    let Body::Windowed { evidence: source, .. } = &rule.body else { panic!("a windowed rule") };
    let mut told = Told::new();
    for run in touched.into_values() {
        let id = crate::ident::of_run(&rule.id, &run.entity, Origin::Live, run.first);
        let sql = crate::evidence::run_query(&rule, window, source, &run, Origin::Live);
        let count = hunt(&store, &sql).await.len() as u64;
        let time = FindingTime::Run {
            first: run.first,
            last: run.last,
            window_us: window.window_us,
            every_us: window.every_us,
        };
        told.insert(id, (time, serde_json::Value::from(run.values).to_string(), count));
    }
    told
}

#[tokio::test]
async fn a_run_told_again_keeps_its_id_and_grows() {
    let mut store = Store::of(&[get(S, "a", "al"), get(S, "b", "al")]);
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let first = engine.on_commit(&marks(4 * S), &store).await.expect("answers").findings;
    assert_eq!(runs(&first), [("al".to_owned(), 2, 4)]);
    store.add(&[get(9 * S, "c", "al"), get(9 * S, "d", "al")]);
    let second = engine.on_commit(&marks(100 * S), &store).await.expect("answers").findings;
    assert_eq!(runs(&second), [("al".to_owned(), 2, 18)]);
    assert_eq!((first[0].id.as_str(), first[0].evidence.count), (second[0].id.as_str(), 2));
    assert_eq!(second[0].evidence.count, 4);
    assert_eq!(first[0].values, second[0].values);
    let uids: Vec<_> = second[0].evidence.events.iter().map(|e| e.event_uid.as_str()).collect();
    assert_eq!(uids, ["a", "b", "c", "d"]);
    assert_eq!(hunt(&store, &second[0].evidence.query).await.len(), 4);
}

#[tokio::test]
async fn a_new_rule_starts_after_what_is_committed() {
    let rows = [get(S, "a", "al"), get(S, "b", "al"), get(50 * S, "c", "bo"), get(50 * S, "d", "bo")];
    let store = Store::of(&rows);
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &marks(30 * S));
    let found = engine.on_commit(&marks(100 * S), &store).await.expect("answers").findings;
    assert_eq!(runs(&found), [("bo".to_owned(), 52, 60)]);
}

#[tokio::test]
async fn many_boundaries_take_several_calls_and_none_is_lost() {
    let rows: Vec<Row> = (0..1_200).map(|n| get(n * 2 * S, &format!("u{n}"), "al")).collect();
    let store = Store::of(&rows);
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let (mut findings, mut calls) = (Vec::new(), 0);
    loop {
        let output = engine.on_commit(&marks(10_000 * S), &store).await.expect("answers");
        findings.extend(output.findings);
        calls += 1;
        if !output.pending {
            break;
        }
    }
    assert!(calls > 1);
    assert_eq!(runs(&findings), [("al".to_owned(), 4, 2_406)]);
}

#[tokio::test]
async fn listed_evidence_and_joins_across_tables_work() {
    let sql = "SELECT f.cluster, count(*) AS n, array_agg(DISTINCT f.event_uid) AS evidence FROM falco f \
               JOIN kubernetes_calls k ON k.cluster = f.cluster AND k.time <= f.time GROUP BY f.cluster";
    let set = rules(&[("d/rule.sql", &rule_text("cluster", "window: 10s\nevery: 2s", sql))]).await;
    let rows = [get(S, "k", "al"), row("falco", DAY + 3 * S, "f1", &[]), row("falco", DAY + 4 * S, "f2", &[])];
    let mut engine = Engine::new(set.clone(), Frontier::default(), &Watermarks::default());
    let store = Store::of(&rows);
    assert!(engine.on_commit(&marks(100 * S), &store).await.expect("answers").findings.is_empty(), "falco is silent");
    let mut both = marks(100 * S);
    both.advance(Source::Falco, DAY + 100 * S);
    let found = engine.on_commit(&both, &store).await.expect("answers").findings;
    assert_eq!(runs(&found), [("prod".to_owned(), 4, 10)]);
    assert_eq!(found[0].tables, ["falco", "kubernetes"]);
    assert_eq!(found[0].evidence.count, 2);
    assert!(!found[0].values.contains_key("evidence"));
    assert_eq!(hunt(&store, &found[0].evidence.query).await.len(), 2);
}

#[tokio::test]
async fn a_failing_rule_waits_then_skips_and_harms_no_other() {
    let bad = "SELECT cluster, CAST(max(actor_user_name) AS INT) AS n FROM kubernetes GROUP BY cluster";
    let good = rule_text("cluster, actor_user_name", "window: 10s\nevery: 2s", COUNT);
    let bad = rule_text("cluster", "window: 10s\nevery: 2s", bad);
    let set = rules(&[("d/bad.sql", &bad), ("d/good.sql", &good)]).await;
    let store = Store::of(&[get(S, "a", "al"), get(S, "b", "al")]);
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let mut findings = Vec::new();
    let mut boundaries = Vec::new();
    for _ in 0..4 {
        findings.extend(engine.on_commit(&marks(4 * S), &store).await.expect("answers").findings);
        boundaries.push((engine.frontier().boundaries["bad"] - DAY) / S);
    }
    assert_eq!(runs(&findings), [("al".to_owned(), 2, 4)]);
    assert_eq!(boundaries, [0, 0, 2, 2]);
}

#[test]
fn engine_futures_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn check(engine: &mut Engine, store: &dyn History) {
        is_send(&engine.on_commit(&Watermarks::default(), store));
        is_send(&engine.finish_bounded(Origin::Import, None, store));
        is_send(&engine.catch_up(store));
    }
    let _ = check;
}
