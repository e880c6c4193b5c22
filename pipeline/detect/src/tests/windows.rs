//! Windowed rules: edges, runs, restarts, and the walk against the oracle.

use std::collections::BTreeMap;

use std::time::Duration;

use event::{Admitted, Finding, Frontier, OffsetRange, Offsets, Origin, Source, Standing, Watermarks};

use super::memory::with_states;
use super::single::hunt;
use super::streams::STATES;
use crate::fixtures::{Cell, Row, Store, admitted, row, rule_text, rules};
use crate::{Engine, History, RuleSet};

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
async fn a_state_table_is_what_was_known_of_it_at_each_boundary() {
    let sql = "SELECT k.cluster, k.objectref_name, k.event_uid AS evidence FROM kubernetes k JOIN runs s \
               ON s.cluster = k.cluster AND s.pod = k.objectref_name AND k.time >= s.valid_from AND k.time < s.valid_to \
               WHERE s.how = 'r1'";
    let text = rule_text("cluster, objectref_name", "window: 10s\nevery: 2s", sql);
    let owned = |(path, text): (&str, &str)| (path.into(), text.to_owned());
    let set = with_states(&STATES.map(owned), &[owned(("d/rule.sql", &text))], "").await.expect("good files");
    let explained = set.rules[0].explanation().expect("of a windowed rule");
    assert!(explained.early.is_ok() && explained.panes.is_err(), "{explained:?}");
    let ran = |at: i64, uid: &str, rule: &str| {
        row("falco", DAY + at, uid, &[("rule", rule.into()), ("k8s_pod_name", "a".into())])
    };
    let known_at = |row: Row, mark: i64| with(row, &[("source_watermark", (DAY + mark).into())]);
    let check = async |more: &[Row], expected: &[(i64, i64)]| {
        let rows = [&[ran(2 * S, "f1", "r1"), get(3 * S, "a", "al"), ran(6 * S, "f2", "r2")], more].concat();
        let expected: Vec<_> = expected.iter().map(|(first, last)| ("a".to_owned(), *first, *last)).collect();
        assert_eq!(runs(&finish(set.clone(), &rows, Origin::Live).await), expected);
        let import: Vec<Row> = rows.into_iter().map(|row| with(row, &[("origin", "import".into())])).collect();
        assert_eq!(runs(&finish(set.clone(), &import, Origin::Import).await), expected);
    };
    // What comes after the row does not change what held then.
    check(&[], &[(4, 12)]).await;
    // What was before it does, from when it is known on, and nothing is said anew of what was final.
    check(&[known_at(ran(2 * S + 1, "f3", "r2"), 8 * S)], &[(4, 8)]).await;
    check(&[ran(S, "f0", "r2"), known_at(ran(3 * S, "f3", "r1"), 8 * S)], &[(4, 12)]).await;
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
    // What the boundaries before would have found with it is found late.
    check(&[get(10 * S, "a", "al"), late(16 * S - 1)], &[("al", 12, 14), ("al", 16, 20)]).await;
    check(&[get(10 * S, "a", "al"), late(16 * S)], &[("al", 12, 16), ("al", 18, 20)]).await;
    check(&[get(10 * S, "a", "al"), late(20 * S)], &[("al", 12, 20)]).await;
    let rows = [get(10 * S, "a", "al"), late(16 * S)];
    let findings = finish(counting("10s", "2s").await, &rows, Origin::Live).await;
    let lates: Vec<bool> = findings.iter().map(|f| f.late).collect();
    assert_eq!(lates, [false, true]);
    assert_eq!(findings.iter().map(|f| f.evidence.count).collect::<Vec<_>>(), [2, 2]);
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

/// Admits rows, all of them committed afterwards, with watermarks at `mark`.
async fn live(engine: &mut Engine, store: &mut Store, rows: &[Row], mark: &Watermarks) -> Vec<Finding> {
    let mut unit = admitted(rows);
    unit.ranges.push(&"kubernetes-audit".into(), 0, OffsetRange { from: 0, next: 1 }).expect("the first range");
    let mut findings = engine.on_admitted(&unit).await.expect("evaluates").findings;
    store.add(rows);
    loop {
        let output = engine.on_commit(mark, &Offsets::default(), store).await.expect("the store answers");
        findings.extend(output.findings);
        if !output.pending {
            return findings;
        }
    }
}

#[tokio::test]
async fn a_run_told_again_keeps_its_id_and_grows() {
    let mut store = Store::default();
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let rows = [get(S, "a", "al"), get(S, "b", "al")];
    let first = live(&mut engine, &mut store, &rows, &marks(4 * S)).await;
    assert_eq!(runs(&first), [("al".to_owned(), 2, 2)]);
    let rows = [get(9 * S, "c", "al"), get(9 * S, "d", "al")];
    let second = live(&mut engine, &mut store, &rows, &marks(100 * S)).await;
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
    let found = engine.on_commit(&marks(100 * S), &Offsets::default(), &store).await.expect("answers").findings;
    assert_eq!(runs(&found), [("bo".to_owned(), 52, 60)]);
}

#[tokio::test]
async fn many_boundaries_take_several_calls_and_none_is_lost() {
    let rows: Vec<Row> = (0..6_000).map(|n| get(n * 2 * S, &format!("u{n}"), "al")).collect();
    let store = Store::of(&rows);
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let (mut findings, mut calls) = (Vec::new(), 0);
    loop {
        let output = engine.on_commit(&marks(100_000 * S), &Offsets::default(), &store).await.expect("answers");
        findings.extend(output.findings);
        calls += 1;
        if !output.pending {
            break;
        }
    }
    assert!(calls > 1);
    assert_eq!(runs(&findings), [("al".to_owned(), 4, 12_006)]);
}

#[tokio::test]
async fn listed_evidence_and_joins_across_tables_work() {
    let sql = "SELECT f.cluster, count(*) AS n, array_agg(DISTINCT f.event_uid) AS evidence FROM falco f \
               JOIN kubernetes_calls k ON k.cluster = f.cluster AND k.time <= f.time GROUP BY f.cluster";
    let set = rules(&[("d/rule.sql", &rule_text("cluster", "window: 10s\nevery: 2s", sql))]).await;
    let rows = [get(S, "k", "al"), row("falco", DAY + 3 * S, "f1", &[]), row("falco", DAY + 4 * S, "f2", &[])];
    let mut engine = Engine::new(set.clone(), Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let early = live(&mut engine, &mut store, &rows, &marks(100 * S)).await;
    assert!(early.iter().all(|f| f.standing == Standing::Provisional), "falco is silent: nothing is final");
    assert_eq!(runs(&early), [("prod".to_owned(), 4, 4)]);
    assert_eq!(early[0].evidence.count, 1, "at that boundary");
    let mut both = marks(100 * S);
    both.advance(Source::Falco, DAY + 100 * S);
    let mut found = live(&mut engine, &mut store, &[], &both).await;
    assert!(found.iter().all(|f| f.standing == Standing::Confirmed && f.id == early[0].id));
    found.drain(..found.len() - 1);
    assert_eq!(runs(&found), [("prod".to_owned(), 4, 10)]);
    assert_eq!(found[0].tables, ["falco", "kubernetes"]);
    assert_eq!(found[0].evidence.count, 2);
    assert!(!found[0].values.contains_key("evidence"));
    assert_eq!(hunt(&store, &found[0].evidence.query).await.len(), 2);
}

#[tokio::test]
async fn a_failing_rule_waits_then_skips_and_harms_no_other() {
    let bad = "SELECT cluster, CAST(string_agg(actor_user_name, '') AS INT) AS n FROM kubernetes GROUP BY cluster";
    let good = rule_text("cluster, actor_user_name", "window: 10s\nevery: 2s", COUNT);
    let bad = rule_text("cluster", "window: 10s\nevery: 2s", bad);
    let set = rules(&[("d/bad.sql", &bad), ("d/good.sql", &good)]).await;
    // Once with each commit, in however many slices that is evaluated.
    for slice in [Duration::MAX, Duration::ZERO] {
        let mut store = Store::default();
        let mut engine = Engine::new(set.clone(), Frontier::default(), &Watermarks::default()).in_slices_of(slice);
        let mut findings = live(&mut engine, &mut store, &[get(S, "a", "al"), get(S, "b", "al")], &marks(4 * S)).await;
        let reached = |engine: &Engine| engine.frontier().boundaries["bad"].saturating_sub(DAY).max(0) / S;
        let mut boundaries = vec![reached(&engine)];
        for _ in 0..3 {
            findings.extend(live(&mut engine, &mut store, &[], &marks(4 * S)).await);
            boundaries.push(reached(&engine));
        }
        assert_eq!(runs(&findings), [("al".to_owned(), 2, 2)]);
        assert_eq!(boundaries, [0, 0, 2, 4], "in slices of {slice:?}");
    }
}

/// The sum of what an actor names: text that is no number cannot be evaluated.
const SUM: &str = "SELECT cluster, actor_user_name, CAST(string_agg(objectref_name, '') AS INT) AS n \
                   FROM kubernetes GROUP BY cluster, actor_user_name";

#[tokio::test]
async fn a_catch_up_that_fails_is_given_up_and_skips_no_boundary() {
    let set = rules(&[("d/rule.sql", &rule_text("cluster, actor_user_name", "window: 2s\nevery: 2s", SUM))]).await;
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let mut found = live(&mut engine, &mut store, &[get(S, "1", "al")], &marks(10 * S)).await;
    let late = with(get(3 * S / 2, "x", "al"), &[("source_watermark", (DAY + 10 * S).into())]);
    found.extend(live(&mut engine, &mut store, &[late, get(21 * S, "2", "al")], &marks(14 * S)).await);
    // A process that ends has to do it again, until it is given up. That the same fails again says nothing.
    for (mark, kept) in [(14, 10), (14, 10), (14, 10), (16, 10), (18, 18)] {
        found.extend(live(&mut engine, &mut store, &[], &marks(mark * S)).await);
        assert_eq!(engine.frontier().boundaries["rule"], DAY + kept * S);
    }
    found.extend(live(&mut engine, &mut store, &[], &marks(100 * S)).await);
    assert_eq!(runs(&found), [("al".to_owned(), 2, 2), ("al".to_owned(), 22, 22)]);
}

#[tokio::test]
async fn a_rule_that_fails_may_lose_its_window() {
    let text = rule_text("cluster, actor_user_name", "window: 2s\nevery: 2s", SUM);
    let set = rules(&[("d/rule.sql", &text)]).await;
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    live(&mut engine, &mut store, &[get(S, "x", "al")], &Watermarks::default()).await;
    // Its state is made anew, which fails: it is tried again.
    let changed = rules(&[("d/rule.sql", &text.replace("A rule", "Another rule"))]).await;
    engine.replace_rules(changed, Vec::new(), &store).await.expect("the store answers");
    let single = rule_text("cluster, actor_user_name", "", "SELECT cluster, actor_user_name FROM kubernetes");
    let single = rules(&[("d/rule.sql", &single)]).await;
    engine.replace_rules(single, Vec::new(), &store).await.expect("the store answers");
    let found = live(&mut engine, &mut store, &[get(5 * S, "y", "al")], &marks(100 * S)).await;
    assert_eq!(found.len(), 1);
}

/// Nobody can group by it, which must not hide its neighbours, now or after a restart.
#[tokio::test]
async fn a_row_whose_key_cannot_be_computed_is_left_out_alone() {
    let sql = "SELECT CAST(objectref_name AS INT) AS number, count(*) AS n FROM kubernetes \
               GROUP BY CAST(objectref_name AS INT) HAVING count(*) >= 2";
    let set = rules(&[("d/rule.sql", &rule_text("number", "window: 10s\nevery: 2s", sql))]).await;
    let one = |uid: &str, name: &str| with(get(S, uid, "al"), &[("objectref_name", name.into())]);
    let rows = [one("a", "7"), one("b", "x"), one("c", "7"), one("d", "y"), one("e", "8")];
    let mut engine = Engine::new(set.clone(), Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let found = live(&mut engine, &mut store, &rows, &marks(4 * S)).await;
    assert_eq!(runs(&found), [("7".to_owned(), 2, 2)]);
    assert_eq!((engine.usage()["rule"].failed, engine.usage()["rule"].kept), (2, 3));
    let frontier = engine.frontier().clone();
    let mut engine = Engine::new(set, frontier, &marks(4 * S));
    engine.catch_up(&store).await.expect("the store answers");
    let found = live(&mut engine, &mut store, &[], &marks(100 * S)).await;
    assert_eq!(runs(&found), [("7".to_owned(), 2, 10)]);
}

/// Announced for 102, then a run from 82 to 90 comes first: what was announced still comes.
#[tokio::test]
async fn a_run_before_the_announced_one_does_not_retract_it() {
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let rows = [get(100 * S, "a", "al"), get(101 * S, "b", "al")];
    let early = live(&mut engine, &mut store, &rows, &Watermarks::default()).await;
    assert_eq!(runs(&early), [("al".to_owned(), 102, 102)]);
    let rows = [get(80 * S, "c", "al"), get(81 * S, "d", "al")];
    let mut found = live(&mut engine, &mut store, &rows, &marks(84 * S)).await;
    found.extend(live(&mut engine, &mut store, &[], &marks(200 * S)).await);
    assert_eq!(runs(&found), [("al".to_owned(), 82, 90), ("al".to_owned(), 102, 110)]);
    assert!(found.iter().all(|f| f.standing != Standing::Retracted));
}

/// The boundary that cannot be evaluated is looked back on after a restart.
#[tokio::test]
async fn a_rule_that_cannot_be_rebuilt_misses_nothing_meanwhile() {
    let set = rules(&[("d/rule.sql", &rule_text("cluster, actor_user_name", "window: 2s\nevery: 2s", SUM))]).await;
    let mut engine = Engine::new(set.clone(), Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    live(&mut engine, &mut store, &[get(5 * S, "x", "al")], &marks(6 * S)).await;
    for _ in 0..3 {
        live(&mut engine, &mut store, &[], &marks(6 * S)).await;
    }
    let frontier = engine.frontier().clone();
    assert_eq!(frontier.boundaries["rule"], DAY + 6 * S, "given up");
    let mut engine = Engine::new(set, frontier, &marks(6 * S));
    engine.catch_up(&store).await.expect("the store answers");
    let mut found = live(&mut engine, &mut store, &[get(21 * S, "2", "al")], &marks(30 * S)).await;
    for _ in 0..4 {
        found.extend(live(&mut engine, &mut store, &[], &marks(30 * S)).await);
    }
    assert_eq!(runs(&found), [("al".to_owned(), 22, 22)]);
    assert_eq!(engine.frontier().boundaries["rule"], DAY + 30 * S);
}

#[tokio::test]
async fn commits_that_come_faster_than_they_are_evaluated_leave_no_rule_out() {
    // None shares its panes with another.
    let texts = ["get", "g_t", "ge_"].map(|verb| {
        let sql = COUNT.replace("k.verb = 'get'", &format!("k.verb LIKE '{verb}'"));
        rule_text("cluster, actor_user_name", "window: 10s\nevery: 2s", &sql)
    });
    let set = rules(&[("d/a.sql", &texts[0]), ("d/b.sql", &texts[1]), ("d/c.sql", &texts[2])]).await;
    let store = Store::of(&[get(S, "a", "al"), get(S, "b", "al")]);
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default()).in_slices_of(Duration::ZERO);
    let mut told = Vec::new();
    for commit in 1..=3 {
        // A slice each, and then the next one.
        let mark = marks((20 + 2 * commit) * S);
        let output = engine.on_commit(&mark, &Offsets::default(), &store).await.expect("the store answers");
        assert!(output.pending);
        let confirmed = output.findings.into_iter().filter(|f| f.standing == Standing::Confirmed);
        told.extend(confirmed.map(|f| f.rule));
    }
    assert_eq!(told, ["a", "b", "c"]);
    let mut slices = 1;
    while engine.go_on(&store).await.expect("the store answers").pending {
        slices += 1;
    }
    assert_eq!(slices, 2, "the two that have not seen the last one");
    assert!(engine.frontier().boundaries.values().all(|b| *b == DAY + 26 * S), "{:?}", engine.frontier().boundaries);
}

#[test]
fn engine_futures_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn check(engine: &mut Engine, store: &dyn History) {
        is_send(&engine.on_commit(&Watermarks::default(), &Offsets::default(), store));
        is_send(&engine.finish_bounded(Origin::Import, None, store));
        is_send(&engine.catch_up(store));
        is_send(&engine.on_admitted(&Admitted::default()));
    }
    let _ = check;
}

#[tokio::test]
async fn rows_of_one_microsecond_all_count() {
    let rows: Vec<Row> = ["a", "b", "c", "d"].iter().map(|uid| get(3 * S, uid, "al")).collect();
    let findings = finish(counting("10s", "2s").await, &rows, Origin::Live).await;
    assert_eq!(runs(&findings), [("al".to_owned(), 4, 12)]);
    assert_eq!((findings[0].values["n"].as_i64(), findings[0].evidence.count), (Some(4), 4));
}

#[tokio::test]
async fn a_day_over_sparse_rows_is_exact_and_costs_only_what_changes() {
    let hour = 3_600 * S;
    let rows = [
        get(hour, "a", "al"),
        get(24 * hour, "b", "al"),
        get(25 * hour + 90 * S, "c", "al"),
        get(80 * hour, "d", "bo"),
    ];
    let mut engine = Engine::new(counting("24h", "1m").await, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let findings = live(&mut engine, &mut store, &rows, &marks(200 * hour)).await;
    let settled: Vec<Finding> = findings.into_iter().filter(|f| f.standing == Standing::Confirmed).collect();
    // The first leaves after 25 h; one boundary sees the second alone.
    assert_eq!(runs(&settled), [("al".to_owned(), 86_460, 90_000), ("al".to_owned(), 90_120, 172_800)]);
}

#[tokio::test]
async fn one_hot_key_costs_no_more_as_the_window_grows() {
    let rows: Vec<Row> = (0..5_000).map(|n| get(n * S / 10, &format!("u{n}"), "al")).collect();
    for (window, last) in [("10s", 508), ("300s", 798)] {
        let findings = finish(counting(window, "2s").await, &rows, Origin::Live).await;
        assert_eq!(runs(&findings), [("al".to_owned(), 2, last)]);
        assert_eq!(findings[0].values["n"].as_i64(), Some(20));
    }
}

#[tokio::test]
async fn a_row_from_the_future_waits_for_its_window() {
    let far = 10 * 366 * 86_400 * S;
    let rows = [get(S, "a", "al"), get(S + far, "b", "al"), get(S + far, "c", "al"), get(2 * S, "d", "al")];
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let findings = live(&mut engine, &mut store, &rows, &marks(1_000 * S)).await;
    let settled: Vec<Finding> = findings.iter().filter(|f| f.standing == Standing::Confirmed).cloned().collect();
    assert_eq!(runs(&settled), [("al".to_owned(), 4, 10)]);
    let ahead: Vec<_> =
        findings.iter().filter(|f| f.standing == Standing::Provisional).map(|f| f.time.first()).collect();
    assert!(ahead.iter().any(|first| *first > DAY + far), "two are enough, whenever it will be: {ahead:?}");
}

#[tokio::test]
async fn what_may_fire_early_fires_when_its_last_row_comes_and_is_confirmed_later() {
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let first = live(&mut engine, &mut store, &[get(S, "a", "al")], &Watermarks::default()).await;
    assert!(first.is_empty());
    let early = live(&mut engine, &mut store, &[get(9 * S, "b", "al")], &Watermarks::default()).await;
    assert_eq!(runs(&early), [("al".to_owned(), 10, 10)]);
    assert_eq!((early[0].standing, early[0].evidence.count), (Standing::Provisional, 2));
    let confirmed = live(&mut engine, &mut store, &[], &marks(100 * S)).await;
    assert_eq!(runs(&confirmed), [("al".to_owned(), 10, 10)]);
    assert_eq!((confirmed[0].standing, &confirmed[0].id), (Standing::Confirmed, &early[0].id));
}

/// What runs in a pod is known from its state table, whichever of the two comes first.
#[tokio::test]
async fn a_window_that_joins_a_state_table_fires_early_too() {
    let sql = "SELECT k.cluster, k.objectref_name, s.how, k.event_uid AS evidence FROM kubernetes k JOIN runs s \
               ON s.cluster = k.cluster AND s.pod = k.objectref_name AND k.time >= s.valid_from AND k.time < s.valid_to \
               WHERE s.how = 'r1'";
    let text = rule_text("cluster, objectref_name", "window: 10s\nevery: 2s", sql);
    let owned = |(path, text): (&str, &str)| (path.into(), text.to_owned());
    let set = with_states(&STATES.map(owned), &[owned(("d/rule.sql", &text))], "").await.expect("it is a rule");
    let runs_r1 = || {
        let cells = [("rule", "r1".into()), ("k8s_pod_name", "s1".into()), ("cluster", "prod".into())];
        row("falco", DAY + S, "f", &cells)
    };
    let asked = || with(get(2 * S, "k", "al"), &[("objectref_name", "s1".into()), ("cluster", "prod".into())]);
    for rows in [[runs_r1(), asked()], [asked(), runs_r1()]] {
        let mut engine = Engine::new(set.clone(), Frontier::default(), &Watermarks::default());
        let mut store = Store::default();
        engine.catch_up(&store).await.expect("the store answers");
        assert!(live(&mut engine, &mut store, &rows[..1], &Watermarks::default()).await.is_empty());
        let early = live(&mut engine, &mut store, &rows[1..], &Watermarks::default()).await;
        assert_eq!(runs(&early), [("s1".to_owned(), 4, 4)]);
        assert_eq!(early[0].standing, Standing::Provisional);
        let mut both = marks(100 * S);
        both.advance(Source::Falco, DAY + 100 * S);
        let confirmed = live(&mut engine, &mut store, &[], &both).await;
        assert_eq!(runs(&confirmed), [("s1".to_owned(), 4, 12)]);
        assert!(confirmed.iter().all(|f| f.id == early[0].id && f.standing == Standing::Confirmed));
    }
}

#[tokio::test]
async fn an_earlier_beginning_retracts_what_was_announced() {
    let mut engine = Engine::new(counting("10s", "2s").await, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let rows = [get(S, "a", "al"), get(9 * S, "b", "al")];
    let early = live(&mut engine, &mut store, &rows, &Watermarks::default()).await;
    assert_eq!(runs(&early), [("al".to_owned(), 10, 10)]);
    live(&mut engine, &mut store, &[get(3 * S, "c", "al")], &Watermarks::default()).await;
    let settled = live(&mut engine, &mut store, &[], &marks(100 * S)).await;
    let of = |standing| settled.iter().filter(|f| f.standing == standing).cloned().collect::<Vec<_>>();
    assert_eq!(of(Standing::Retracted).iter().map(|f| &f.id).collect::<Vec<_>>(), [&early[0].id]);
    assert_eq!(runs(&of(Standing::Confirmed)), [("al".to_owned(), 4, 12)]);
}

#[tokio::test]
async fn a_rule_whose_plan_is_not_monotone_waits() {
    let sql = "SELECT actor_user_name, count(*) AS n FROM kubernetes GROUP BY actor_user_name HAVING count(*) < 2";
    let set = rules(&[("d/rule.sql", &rule_text("actor_user_name", "window: 10s\nevery: 2s", sql))]).await;
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    assert!(live(&mut engine, &mut store, &[get(S, "a", "al")], &Watermarks::default()).await.is_empty());
    let found = live(&mut engine, &mut store, &[], &marks(100 * S)).await;
    assert_eq!(runs(&found), [("al".to_owned(), 2, 10)]);
}

#[tokio::test]
async fn a_row_that_is_kept_does_not_keep_its_batch() {
    let sql = "SELECT k.cluster, k.actor_user_name, f.event_uid AS evidence FROM kubernetes k \
               JOIN falco f ON f.cluster = k.cluster AND f.k8s_pod_name = k.objectref_name WHERE k.verb = 'create'";
    let text = rule_text("cluster, actor_user_name", "window: 10s\nevery: 2s", sql);
    let mut engine = Engine::new(rules(&[("d/rule.sql", &text)]).await, Frontier::default(), &Watermarks::default())
        .without_evidence();
    let rows: Vec<Row> = (0..200)
        .map(|n| {
            let who = format!("{n} {}", "x".repeat(20_000));
            with(get(S, &format!("u{n}"), &who), &[("verb", if n == 100 { "create" } else { "get" }.into())])
        })
        .collect();
    engine.on_admitted(&admitted(&rows)).await.expect("evaluates");
    let usage = engine.usage()["rule"];
    assert_eq!(usage.kept, 1);
    assert!((20_000..100_000).contains(&usage.state_bytes), "{} bytes", usage.state_bytes);
}

/// Twice as many rows as `COUNT` takes, of the same.
fn more() -> String {
    COUNT.replace(">= 2", ">= 4")
}

#[tokio::test]
async fn rules_with_the_same_panes_have_one_set_of_them() {
    let header = "window: 10s\nevery: 2s";
    let (few, many) = (rule_text("cluster, actor_user_name", header, COUNT), rule_text("cluster", header, &more()));
    let other = rule_text("cluster, actor_user_name", "window: 12s\nevery: 2s", COUNT);
    let mut rows: Vec<Row> = (0..4).map(|n| get((n + 1) * S, &format!("u{n}"), "al")).collect();
    rows.extend((0..500).map(|n| get(5 * S, &format!("v{n}"), &format!("user {n}"))));
    let bytes = async |files: &[(&str, &str)]| {
        let mut engine = Engine::new(rules(files).await, Frontier::default(), &Watermarks::default());
        let mut store = Store::default();
        let findings = live(&mut engine, &mut store, &rows, &marks(100 * S)).await;
        let usage = engine.usage();
        assert!(usage.values().all(|usage| usage.kept == 504));
        let of = |rule: &str| runs(&findings.iter().filter(|f| f.rule == rule).cloned().collect::<Vec<_>>());
        assert_eq!(of("few"), [("al".to_owned(), 4, 12)]);
        (usage.values().map(|usage| usage.state_bytes).sum::<u64>(), of("many"), engine.frontier().clone())
    };
    let (alone, ..) = bytes(&[("d/few.sql", &few)]).await;
    let (together, many_found, frontier) = bytes(&[("d/few.sql", &few), ("d/many.sql", &many)]).await;
    let (apart, ..) = bytes(&[("d/few.sql", &few), ("d/other.sql", &other)]).await;
    assert!(together < alone * 3 / 2 && apart > alone * 3 / 2, "{alone} alone, {together} together, {apart} apart");
    assert_eq!(many_found, [("prod".to_owned(), 6, 10)], "by its own threshold and entity");
    assert_eq!(frontier.boundaries["few"], frontier.boundaries["many"]);
    let set = rules(&[("d/few.sql", &few), ("d/many.sql", &many), ("d/other.sql", &other)]).await;
    let sharing = |id: &str| set.sharing_panes_with(set.get(id).expect("it is there"));
    assert_eq!(sharing("few").iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["many"]);
    assert!(sharing("other").is_empty());
}

#[tokio::test]
async fn a_rule_that_changes_leaves_those_that_share_its_panes() {
    let header = "window: 10s\nevery: 2s";
    let (few, many) = (rule_text("cluster, actor_user_name", header, COUNT), rule_text("cluster", header, &more()));
    let lower = few.replace(">= 2", ">= 1");
    let both = rules(&[("d/few.sql", &few), ("d/many.sql", &many)]).await;
    for (now, expected) in [
        // The first of them goes, changes, or both are what they were.
        (rules(&[("d/many.sql", &many)]).await, vec!["many 6..12"]),
        (rules(&[("d/few.sql", &lower), ("d/many.sql", &many)]).await, vec!["few 4..14", "many 6..12"]),
        (both.clone(), vec!["few 6..14", "many 6..12"]),
    ] {
        let mut engine = Engine::new(both.clone(), Frontier::default(), &Watermarks::default());
        let mut store = Store::default();
        let before = live(&mut engine, &mut store, &[get(3 * S, "a", "al")], &marks(2 * S)).await;
        assert!(before.is_empty());
        let replaced = engine.replace_rules(now, Vec::new(), &store).await.expect("the store answers");
        let rows: Vec<Row> = ["b", "c", "d"].iter().map(|uid| get(4 * S, uid, "al")).collect();
        let mut found = replaced.findings;
        found.extend(live(&mut engine, &mut store, &rows, &marks(100 * S)).await);
        let mut last: BTreeMap<String, Finding> = BTreeMap::new();
        last.extend(found.into_iter().map(|f| (f.id.clone(), f)));
        let told: Vec<String> = last
            .values()
            .filter(|f| f.standing == Standing::Confirmed)
            .map(|f| format!("{} {}..{}", f.rule, (f.time.first() - DAY) / S, (f.time.last() - DAY) / S))
            .collect();
        let told: std::collections::BTreeSet<&str> = told.iter().map(String::as_str).collect();
        assert_eq!(told.into_iter().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn a_rule_that_cannot_be_evaluated_harms_none_that_shares_its_panes() {
    let header = "window: 10s\nevery: 2s";
    let good = rule_text("cluster, actor_user_name", header, COUNT);
    // The same groups and counts; what it makes of them fails.
    let bad = COUNT.replace("count(*) AS n", "CAST(actor_user_name AS INT) AS number, count(*) AS n");
    let bad = rule_text("cluster, actor_user_name", header, &bad);
    let set = rules(&[("d/bad.sql", &bad), ("d/good.sql", &good)]).await;
    assert_eq!(set.sharing_panes_with(set.get("good").expect("it is there")).len(), 1);
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    let findings = live(&mut engine, &mut store, &[get(S, "a", "al"), get(S, "b", "al")], &marks(100 * S)).await;
    assert!(findings.iter().all(|f| f.rule == "good"));
    assert_eq!(runs(&findings), [("al".to_owned(), 2, 10)]);
    assert!(engine.frontier().boundaries.values().all(|boundary| *boundary == DAY + 100 * S));
}
