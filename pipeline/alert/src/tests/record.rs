//! Recording: incidents come out the same for every order, portion and repetition; pages and frontier with them.

use std::collections::{BTreeMap, BTreeSet};

use event::{Finding, FindingTime, Frontier, Origin, Severity};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::{House, at, finding};
use crate::{Alerts, Config, Error, Filter, PageFilter, Reader, Recorded, Subject};

const HOUR: i64 = 3_600_000_000;

fn run(user: &str, first: i64, last: i64) -> Finding {
    finding("burst", user, FindingTime::Run { first, last, window_us: 5, every_us: 1 })
}

/// Incidents as (user, first, last, findings), by user and time.
fn incidents(house: &House) -> Vec<(String, i64, i64, i64)> {
    let all = Reader::open(&house.db()).unwrap().incidents(&Filter::default()).unwrap();
    let mut all: Vec<_> = all.into_iter().map(|i| (i.entity[1].1.clone(), i.first, i.last, i.findings)).collect();
    all.sort();
    all
}

fn pages(house: &House) -> Vec<crate::Page> {
    Reader::open(&house.db()).unwrap().outbox(&PageFilter::default()).unwrap()
}

#[test]
fn findings_make_incidents_until_it_is_quiet() {
    let check = |transactions: &[&[Finding]], expected: &[(&str, i64, i64, i64)], pages_expected: usize| {
        let house = House::new();
        let mut alerts = Alerts::open(&house.db(), &house.config("pd", "http://x")).unwrap();
        for findings in transactions {
            alerts.record(findings, &Frontier::default(), 0).unwrap();
        }
        let expected: Vec<_> = expected.iter().map(|(u, f, l, n)| ((*u).to_owned(), *f, *l, *n)).collect();
        assert_eq!(incidents(&house), expected);
        assert_eq!(pages(&house).len(), pages_expected);
    };
    // `suppress` is 10 here.
    check(&[&[at("r", "ann", 100)], &[at("r", "ann", 110)]], &[("ann", 100, 110, 2)], 1);
    check(&[&[at("r", "ann", 100)], &[at("r", "ann", 111)]], &[("ann", 100, 100, 1), ("ann", 111, 111, 1)], 2);
    check(&[&[at("r", "ann", 100), at("r", "bob", 101)]], &[("ann", 100, 100, 1), ("bob", 101, 101, 1)], 2);
    // Known already.
    check(&[&[at("r", "ann", 100)], &[at("r", "ann", 100)]], &[("ann", 100, 100, 1)], 1);
    // Late, before the incident it belongs to.
    check(&[&[at("r", "ann", 100)], &[at("r", "ann", 95)]], &[("ann", 95, 100, 2)], 1);
    // Late, between two: both have paged, the younger joins the older.
    check(&[&[at("r", "ann", 100)], &[at("r", "ann", 120)], &[at("r", "ann", 110)]], &[("ann", 100, 120, 3)], 2);
    // In one transaction the same three are one from the start.
    check(&[&[at("r", "ann", 100), at("r", "ann", 120), at("r", "ann", 110)]], &[("ann", 100, 120, 3)], 1);
    // A run grows, never shrinks, and keeps its incident open.
    check(&[&[run("ann", 100, 105)], &[run("ann", 100, 130)], &[run("ann", 100, 110)]], &[("ann", 100, 130, 1)], 1);
    check(&[&[run("ann", 100, 130)], &[run("ann", 140, 140)]], &[("ann", 100, 140, 2)], 1);
}

#[test]
fn a_run_keeps_its_latest_end_and_largest_evidence() {
    let house = House::new();
    let mut alerts = Alerts::open(&house.db(), &Config::default()).unwrap();
    let (mut early, mut late) = (run("ann", 100, 105), run("ann", 100, 130));
    (early.evidence.count, early.summary) = (9, "early".to_owned());
    (late.evidence.count, late.summary) = (3, "late".to_owned());
    let first = alerts.record(&[late.clone()], &Frontier::default(), 0).unwrap();
    assert_eq!(first, Recorded { findings: 1, incidents: 1, ..Recorded::default() });
    let second = alerts.record(&[early], &Frontier::default(), 0).unwrap();
    assert_eq!(second, Recorded { extended: 1, ..Recorded::default() });
    let held = Reader::open(&house.db()).unwrap().findings(&Filter::default()).unwrap().remove(0).finding;
    assert_eq!((held.time, held.evidence.count, held.summary.as_str()), (late.time, 9, "late"));
}

#[test]
fn incidents_count_episodes_and_have_stable_ids() {
    let ids = |house: &House| {
        let mut alerts = Alerts::open(&house.db(), &Config::default()).unwrap();
        alerts.record(&[at("r", "ann", 100), at("r", "ann", 200)], &Frontier::default(), 0).unwrap();
        let all = Reader::open(&house.db()).unwrap().incidents(&Filter::default()).unwrap();
        all.into_iter().map(|i| (i.id, i.episode)).collect::<Vec<_>>()
    };
    let (one, other) = (ids(&House::new()), ids(&House::new()));
    assert_eq!(one, other);
    assert_eq!((one[0].1, one[1].1), (2, 1));
}

#[test]
fn imports_page_only_when_asked() {
    let check = |page_imports: bool, expected: usize| {
        let house = House::new();
        let config = Config { page_imports, ..house.config("pd", "http://x") };
        let mut alerts = Alerts::open(&house.db(), &config).unwrap();
        let import = Finding { origin: Origin::Import, ..at("r", "ann", 100) };
        alerts.record(&[import], &Frontier::default(), 0).unwrap();
        assert_eq!(pages(&house).len(), expected);
        // The live incident is another one: an import must not silence it.
        alerts.record(&[at("r", "ann", 101)], &Frontier::default(), 0).unwrap();
        assert_eq!((pages(&house).len(), incidents(&house).len()), (expected + 1, 2));
    };
    check(false, 0);
    check(true, 1);
}

#[test]
fn informational_findings_do_not_page_by_default() {
    let house = House::new();
    let mut alerts = Alerts::open(&house.db(), &house.config("pd", "http://x")).unwrap();
    let finding = Finding { severity: Severity::Informational, ..at("r", "ann", 100) };
    let recorded = alerts.record(&[finding], &Frontier::default(), 0).unwrap();
    assert_eq!((recorded.incidents, recorded.pages), (1, 0));
}

#[test]
fn a_flood_becomes_one_page_per_hour() {
    let house = House::new();
    let config = Config { pages_per_hour_max: 5, ..house.config("pd", "http://x") };
    let mut alerts = Alerts::open(&house.db(), &config).unwrap();
    let storm = |from: i64, count: i64| -> Vec<Finding> {
        (from..from + count).map(|i| at("noisy", &format!("user{i}"), 100)).collect()
    };
    let mut check = |findings: &[Finding], now: i64, pages: u64, flooded: u64| {
        let recorded = alerts.record(findings, &Frontier::default(), now).unwrap();
        assert_eq!((recorded.pages, recorded.flooded), (pages, flooded));
    };
    check(&storm(0, 12), 7 * HOUR, 6, 7); // five and the notice
    check(&storm(12, 3), 7 * HOUR + 1, 0, 3);
    check(&[at("quiet", "ann", 100)], 7 * HOUR + 2, 1, 0); // another rule
    check(&storm(20, 1), 8 * HOUR, 1, 0); // another hour
    let notice = pages(&house).into_iter().find_map(|p| match p.notification.subject {
        Subject::Flood(flood) => Some(flood),
        Subject::Finding { .. } | Subject::Retracted(_) => None,
    });
    let notice = notice.expect("a flood notice");
    assert_eq!((notice.rule.as_str(), notice.incidents, notice.cap, notice.hour), ("noisy", 12, 5, 7 * HOUR));
    assert_eq!(incidents(&house).len(), 17);
}

#[test]
fn reads_filter() {
    let house = House::new();
    let mut alerts = Alerts::open(&house.db(), &Config::default()).unwrap();
    let low = Finding { severity: Severity::Low, ..at("calm", "ann", 300) };
    alerts.record(&[at("r", "ann", 100), at("r", "bob", 200), low], &Frontier::default(), 0).unwrap();
    let check = |filter: Filter, expected: &[i64]| {
        let reader = Reader::open(&house.db()).unwrap();
        let incidents: Vec<i64> = reader.incidents(&filter).unwrap().iter().map(|i| i.first).collect();
        let findings: Vec<i64> = reader.findings(&filter).unwrap().iter().map(|f| f.finding.time.first()).collect();
        assert_eq!((incidents.as_slice(), findings.as_slice()), (expected, expected), "{filter:?}");
    };
    check(Filter::default(), &[300, 200, 100]);
    check(Filter { limit: Some(1), ..Filter::default() }, &[300]);
    check(Filter { since: Some(150), ..Filter::default() }, &[300, 200]);
    check(Filter { severity: Some(Severity::Medium), ..Filter::default() }, &[200, 100]);
    check(Filter { rule: Some("r".to_owned()), since: Some(150), ..Filter::default() }, &[200]);
    let id = Reader::open(&house.db()).unwrap().incidents(&Filter::default()).unwrap()[2].id.clone();
    check(Filter { incident: Some(id), ..Filter::default() }, &[100]);
}

#[test]
fn newer_and_missing_databases_are_refused() {
    let house = House::new();
    assert!(matches!(Reader::open(&house.db()), Err(Error::Missing(_))));
    drop(Alerts::open(&house.db(), &Config::default()).unwrap());
    assert_eq!(incidents(&house), []); // also when nobody else has it open
    let db = rusqlite::Connection::open(house.db()).unwrap();
    db.execute("UPDATE format SET version = 999", []).unwrap();
    let error = Alerts::open(&house.db(), &Config::default()).err().expect("refused").to_string();
    assert!(error.contains("999") && error.contains("\nhint: "), "{error}");
    assert!(matches!(Reader::open(&house.db()), Err(Error::Newer { found: 999, .. })));
}

/// The oracle: findings of one user within `suppress` of each other, directly or through others.
fn expected(findings: &[Finding]) -> Vec<(String, i64, i64, i64)> {
    let mut by_user: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    for finding in findings {
        by_user.entry(finding.entity[1].1.clone()).or_default().push((finding.time.first(), finding.time.last()));
    }
    let mut all = Vec::new();
    for (user, mut spans) in by_user {
        spans.sort_unstable();
        let mut open: Option<(i64, i64, i64)> = None;
        for (first, last) in spans {
            open = Some(match open {
                Some((from, to, count)) if first <= to + 10 => (from, to.max(last), count + 1),
                done => {
                    all.extend(done.map(|(f, l, n)| (user.clone(), f, l, n)));
                    (first, last, 1)
                }
            });
        }
        all.extend(open.map(|(f, l, n)| (user.clone(), f, l, n)));
    }
    all.sort();
    all
}

/// Runs in all the stages of their growth, as evaluations meet them.
fn random_findings(random: &mut StdRng) -> (Vec<Finding>, Vec<Finding>) {
    let (mut finals, mut versions, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for _ in 0..random.random_range(1..30) {
        let user = ["ann", "bob"][random.random_range(0..2)];
        let first = random.random_range(0..300);
        if !seen.insert((user, first)) {
            continue;
        }
        let mut last = first;
        for _ in 0..random.random_range(1..4) {
            versions.push(run(user, first, last));
            last += random.random_range(1..12);
        }
        finals.extend(versions.last().cloned());
    }
    (finals, versions)
}

#[test]
fn any_order_portion_and_repetition_gives_the_same_incidents() {
    for _ in 0..40 {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        any_order(&mut StdRng::seed_from_u64(seed));
    }
}

fn any_order(random: &mut StdRng) {
    let house = House::new();
    let config = house.config("pd", "http://x");
    let mut alerts = Alerts::open(&house.db(), &config).unwrap();
    let (finals, mut versions) = random_findings(random);
    let repeated: Vec<_> = versions.iter().filter(|_| random.random_bool(0.3)).cloned().collect();
    versions.extend(repeated);
    versions.shuffle(random);
    let (mut rest, mut reached) = (versions.as_slice(), Frontier::default());
    while !rest.is_empty() {
        let (portion, later) = rest.split_at(random.random_range(1..=rest.len()));
        let mut frontier = Frontier::default();
        frontier.offsets.insert(("audit".into(), random.random_range(0..2)), random.random_range(0..100));
        frontier.boundaries.insert("burst".to_owned(), random.random_range(0..100));
        alerts.record(portion, &frontier, random.random_range(0..HOUR)).unwrap();
        reached.advance(&frontier);
        assert_eq!(alerts.frontier().unwrap(), reached);
        if random.random_bool(0.3) {
            // As after a crash: opened again, and the same portion evaluated again.
            alerts = Alerts::open(&house.db(), &config).unwrap();
            let again = alerts.record(portion, &Frontier::default(), 0).unwrap();
            assert_eq!(again, Recorded::default());
        }
        rest = later;
    }
    assert_eq!(incidents(&house), expected(&finals));
    one_page_each(&house);
}

/// Every incident ever opened has paged once, also one that later became part of another.
fn one_page_each(house: &House) {
    let db = rusqlite::Connection::open(house.db()).unwrap();
    let ids = |sql: &str| -> Vec<String> {
        let mut query = db.prepare(sql).unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let opened = ids("SELECT id FROM incidents ORDER BY id");
    assert_eq!(ids("SELECT incident FROM outbox ORDER BY incident"), opened);
}
