//! Findings that are not settled when they come, or that may not page: what becomes of them, of their incidents and of
//! the pages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event::{Finding, FindingTime, Frontier, Standing};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::fake::{Fake, FastClock, Reply, eventually};
use super::{House, at, finding};
use crate::{Alerts, Config, Delivery, Filter, Incident, PageFilter, Reader, Recorded, Subject, UreqHttp};

const WINDOW: i64 = 50;

/// Held at the boundaries `first..=last`; `suppress` is 10, the window is longer.
fn held(user: &str, first: i64, last: i64, standing: Standing) -> Finding {
    let time = FindingTime::Run { first, last, window_us: WINDOW, every_us: 1 };
    Finding { standing, ..finding("burst", user, time) }
}

fn provisional(first: i64, last: i64) -> Finding {
    held("ann", first, last, Standing::Provisional)
}

fn confirmed(first: i64, last: i64) -> Finding {
    held("ann", first, last, Standing::Confirmed)
}

fn retracted(first: i64, last: i64) -> Finding {
    held("ann", first, last, Standing::Retracted)
}

fn late(finding: Finding) -> Finding {
    Finding { late: true, ..finding }
}

fn historical(finding: Finding) -> Finding {
    Finding { historical: true, ..finding }
}

fn learning(finding: Finding) -> Finding {
    Finding { learning: true, ..finding }
}

/// The rule's boundaries are evaluated up to and with `boundary`.
fn up_to(boundary: i64) -> Frontier {
    let mut frontier = Frontier::default();
    frontier.boundaries.insert("burst".to_owned(), boundary);
    frontier
}

struct Desk {
    house: House,
    alerts: Alerts,
    now: i64,
}

impl Desk {
    fn new() -> Desk {
        Desk::with(|_| {})
    }

    fn with(change: impl Fn(&mut Config)) -> Desk {
        let house = House::new();
        let mut config = house.config("pd", "http://x");
        change(&mut config);
        let alerts = Alerts::open(&house.db(), &config).unwrap();
        Desk { house, alerts, now: 1_000 }
    }

    fn record(&mut self, findings: &[Finding], frontier: &Frontier) -> Recorded {
        self.now += 1;
        self.alerts.record(findings, frontier, self.now).unwrap()
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.house.db()).unwrap()
    }

    fn incidents(&self) -> Vec<Incident> {
        self.reader().incidents(&Filter::default()).unwrap()
    }

    fn findings(&self) -> Vec<Finding> {
        self.reader().findings(&Filter::default()).unwrap().into_iter().map(|f| f.finding).collect()
    }

    /// What the outbox tells, oldest first: incident and `opened`, `retracted` or `flood`.
    fn told(&self) -> Vec<(String, &'static str)> {
        let mut pages = self.reader().outbox(&PageFilter::default()).unwrap();
        pages.reverse();
        let what = |subject: &Subject| match subject {
            Subject::Finding { .. } => "opened",
            Subject::Retracted(_) => "retracted",
            Subject::Flood(_) => "flood",
        };
        pages.into_iter().map(|p| (p.incident, what(&p.notification.subject))).collect()
    }

    fn words(&self) -> Vec<&'static str> {
        self.told().into_iter().map(|(_, what)| what).collect()
    }
}

#[test]
fn a_finding_only_ever_settles() {
    use Standing::{Confirmed, Provisional, Retracted};
    let check = |words: &[Finding], expected: Option<(Standing, i64, bool)>| {
        let mut desk = Desk::new();
        for word in words {
            desk.record(std::slice::from_ref(word), &Frontier::default());
        }
        let got = desk.findings().first().map(|f| (f.standing, f.time.last(), f.late));
        assert_eq!(got, expected, "one by one");
        let mut desk = Desk::new();
        desk.record(words, &Frontier::default());
        let got = desk.findings().first().map(|f| (f.standing, f.time.last(), f.late));
        assert_eq!(got, expected, "in one transaction");
    };
    check(&[provisional(100, 105)], Some((Provisional, 105, false)));
    check(&[provisional(100, 105), provisional(100, 107)], Some((Provisional, 107, false)));
    // What is final counts, also when it is less.
    check(&[provisional(100, 105), confirmed(100, 102)], Some((Confirmed, 102, false)));
    check(&[confirmed(100, 102), provisional(100, 105)], Some((Confirmed, 102, false)));
    check(&[confirmed(100, 102), retracted(100, 102)], Some((Confirmed, 102, false)));
    check(&[provisional(100, 105), retracted(100, 104)], Some((Retracted, 104, false)));
    check(&[provisional(100, 105), retracted(100, 104), provisional(100, 109)], Some((Retracted, 104, false)));
    check(&[provisional(100, 105), retracted(100, 104), confirmed(100, 109)], Some((Retracted, 104, false)));
    check(&[provisional(100, 105), retracted(100, 104), late(confirmed(100, 109))], Some((Confirmed, 109, true)));
    check(&[retracted(100, 104)], None);
    // Late only as long as nothing else has found it.
    check(&[late(confirmed(100, 105)), confirmed(100, 104)], Some((Confirmed, 105, false)));
    check(&[confirmed(100, 104), late(confirmed(100, 105))], Some((Confirmed, 105, false)));
}

#[test]
fn a_single_event_settles_too() {
    let mut desk = Desk::new();
    let word = |standing| Finding { standing, ..at("burst", "ann", 100) };
    desk.record(&[word(Standing::Provisional)], &Frontier::default());
    let recorded = desk.record(&[word(Standing::Confirmed)], &Frontier::default());
    assert_eq!(recorded, Recorded { confirmed: 1, ..Recorded::default() });
    assert_eq!((desk.findings()[0].standing, desk.words()), (Standing::Confirmed, vec!["opened"]));
}

#[test]
fn provisional_findings_page_at_once_and_confirming_adds_nothing() {
    let mut desk = Desk::new();
    let recorded = desk.record(&[provisional(100, 100)], &up_to(99));
    assert_eq!(recorded, Recorded { findings: 1, incidents: 1, pages: 1, ..Recorded::default() });
    assert_eq!(desk.incidents()[0].provisional, 1);
    let recorded = desk.record(&[confirmed(100, 100)], &up_to(100));
    assert_eq!(recorded, Recorded { confirmed: 1, ..Recorded::default() });
    assert_eq!((desk.words(), desk.incidents()[0].provisional), (vec!["opened"], 0));
}

#[test]
fn what_takes_a_retracted_findings_place_joins_its_incident() {
    let check = |first: i64| {
        for one_transaction in [false, true] {
            let mut desk = Desk::new();
            desk.record(&[provisional(100, 100)], &up_to(99));
            let words = [retracted(100, 100), confirmed(first, first)];
            if one_transaction {
                desk.record(&words, &up_to(first.max(100)));
            } else {
                desk.record(&words[..1], &up_to(100));
                desk.record(&words[1..], &up_to(first.max(100)));
            }
            let after = desk.record(&[], &up_to(10_000));
            assert_eq!(after, Recorded::default(), "first {first}");
            let incidents = desk.incidents();
            assert_eq!((incidents.len(), incidents[0].findings, incidents[0].retracted), (1, 2, None), "first {first}");
            assert_eq!(desk.words(), ["opened"], "first {first}");
        }
    };
    check(101);
    check(99);
    // Farther than `suppress`, but over rows of the same window.
    check(100 + WINDOW);
    check(100 - WINDOW);
}

#[test]
fn an_incident_of_retracted_findings_is_retracted_and_closed_when_nothing_can_follow() {
    let mut desk = Desk::new();
    desk.record(&[provisional(100, 100), provisional(105, 105)], &up_to(99));
    desk.record(&[retracted(100, 100)], &up_to(100));
    assert_eq!((desk.incidents()[0].retracted, desk.words()), (None, vec!["opened"]));
    desk.record(&[retracted(105, 105)], &up_to(105));
    // Known at once; told when no window over those rows is open any more.
    assert_eq!((desk.incidents()[0].retracted, desk.words()), (Some(desk.now), vec!["opened"]));
    let since = desk.now;
    desk.record(&[], &up_to(104 + WINDOW));
    assert_eq!(desk.words(), ["opened"]);
    let recorded = desk.record(&[], &up_to(105 + WINDOW));
    assert_eq!(recorded, Recorded { pages: 1, ..Recorded::default() });
    assert_eq!(desk.record(&[retracted(105, 105)], &up_to(10_000)), Recorded::default());
    assert_eq!((desk.incidents()[0].retracted, desk.words()), (Some(since), vec!["opened", "retracted"]));
    // A closed incident takes nothing more: who was told to stand down is called again.
    desk.record(&[confirmed(108, 108)], &up_to(10_000));
    assert_eq!(desk.words(), ["opened", "retracted", "opened"]);
    // Also when it is the same finding, by a late evaluation.
    desk.record(&[late(confirmed(105, 105))], &up_to(10_000));
    let episodes: Vec<_> = desk.incidents().iter().map(|i| (i.episode, i.retracted.is_some())).collect();
    assert_eq!(episodes, [(2, false), (1, true)]);
}

#[test]
fn a_late_confirmation_of_a_closed_incident_pages_and_says_late() {
    let mut desk = Desk::new();
    desk.record(&[provisional(100, 100)], &up_to(99));
    desk.record(&[retracted(100, 100)], &up_to(10_000));
    assert_eq!(desk.words(), ["opened", "retracted"]);
    let recorded = desk.record(&[late(confirmed(100, 100))], &up_to(10_000));
    assert_eq!(recorded, Recorded { confirmed: 1, incidents: 1, pages: 1, ..Recorded::default() });
    let page = desk.reader().outbox(&PageFilter::default()).unwrap().remove(0);
    assert_eq!(page.notification.summary(), "Late: ann read 21 secrets in ten minutes");
    assert!(desk.incidents()[0].late);
    let standings: Vec<_> = desk.reader().standings(&confirmed(100, 100)).unwrap();
    let standings: Vec<_> = standings.iter().map(|s| (s.standing, s.recorded)).collect();
    assert_eq!(standings, [(Standing::Provisional, 1_001), (Standing::Retracted, 1_002), (Standing::Confirmed, 1_003)]);
}

#[test]
fn everyone_who_was_paged_is_told_once() {
    let mut desk = Desk::new();
    // Two incidents that both paged and became one.
    desk.record(&[confirmed(1_000, 1_000)], &up_to(0)); // another incident, which stays
    let far = 2 * WINDOW;
    desk.record(&[provisional(100, 100)], &up_to(0));
    desk.record(&[provisional(100 + far, 100 + far)], &up_to(0));
    desk.record(&[provisional(100 + WINDOW, 100 + WINDOW)], &up_to(0));
    assert_eq!(desk.incidents().len(), 2);
    let all = [100, 100 + WINDOW, 100 + far].map(|first| retracted(first, first));
    desk.record(&all, &up_to(10_000));
    let told = desk.told();
    let mut paged: Vec<_> = told.iter().filter(|(_, what)| *what == "opened").map(|(i, _)| i.clone()).collect();
    let retractions: Vec<_> = told.iter().filter(|(_, what)| *what == "retracted").map(|(i, _)| i.clone()).collect();
    paged.remove(0);
    assert_eq!((retractions.len(), retractions), (2, paged));
}

#[test]
fn what_never_paged_is_retracted_in_silence() {
    let mut desk = Desk::with(|config| (config.receivers, config.route) = (Vec::new(), None));
    desk.record(&[provisional(100, 100)], &up_to(0));
    desk.record(&[retracted(100, 100)], &up_to(10_000));
    assert_eq!((desk.incidents()[0].retracted.is_some(), desk.words().len()), (true, 0));
}

#[test]
fn learning_and_historical_findings_are_kept_and_page_nobody() {
    let check = |quiet: fn(Finding) -> Finding, why: &str| {
        let mut desk = Desk::with(|config| config.pages_per_hour_max = 1);
        let many: Vec<_> = (0..5).map(|i| quiet(held(&format!("u{i}"), 100, 100, Standing::Confirmed))).collect();
        let recorded = desk.record(&many, &up_to(0));
        assert_eq!(recorded, Recorded { findings: 5, incidents: 5, ..Recorded::default() });
        assert!(desk.incidents().iter().all(|i| i.quiet.as_deref() == Some(why)));
        // The first that may page pages, and the cap has not counted the others.
        let recorded = desk.record(&[held("u3", 102, 102, Standing::Provisional)], &up_to(0));
        assert_eq!(recorded, Recorded { findings: 1, pages: 1, ..Recorded::default() });
        let recorded = desk.record(&[held("u3", 104, 104, Standing::Confirmed)], &up_to(0));
        assert_eq!(recorded, Recorded { findings: 1, ..Recorded::default() });
        let loud: Vec<_> = desk.incidents().into_iter().filter(|i| i.quiet.is_none()).collect();
        assert_eq!((loud.len(), loud[0].findings), (1, 3));
    };
    check(learning, "learning");
    check(historical, "historical");
}

#[test]
fn a_historical_run_that_goes_on_pages() {
    let mut desk = Desk::new();
    desk.record(&[historical(confirmed(100, 105))], &up_to(105));
    assert_eq!(desk.words(), [""; 0]);
    let recorded = desk.record(&[confirmed(100, 106)], &up_to(106));
    assert_eq!(recorded, Recorded { extended: 1, pages: 1, ..Recorded::default() });
    assert!(!desk.findings()[0].historical);
}

#[test]
fn an_incident_that_paged_does_not_page_again_by_joining_a_quiet_one() {
    let mut desk = Desk::new();
    desk.record(&[historical(confirmed(100, 100))], &up_to(0));
    desk.record(&[confirmed(120, 120)], &up_to(0));
    let recorded = desk.record(&[confirmed(110, 110)], &up_to(0)); // joins both
    assert_eq!(recorded, Recorded { findings: 1, ..Recorded::default() });
    assert_eq!((desk.incidents().len(), desk.incidents()[0].quiet.clone()), (1, None));
}

#[test]
fn a_restart_takes_up_what_is_provisional() {
    let mut desk = Desk::new();
    desk.record(&[provisional(300, 300), provisional(100, 100), provisional(200, 200), confirmed(400, 400)], &up_to(0));
    desk.record(&[retracted(100, 100)], &up_to(0));
    let alerts = Alerts::open(&desk.house.db(), &Config::default()).unwrap();
    assert_eq!(alerts.provisional().unwrap(), [provisional(200, 200), provisional(300, 300)]);
    let db = rusqlite::Connection::open(desk.house.db()).unwrap();
    let plan = "EXPLAIN QUERY PLAN SELECT finding FROM findings WHERE standing = 0 ORDER BY rule, first, id";
    let how: String = db.query_row(plan, [], |row| row.get(3)).unwrap();
    assert!(how.contains("findings_provisional"), "{how}");
}

/// Delivers what waits and returns the bodies, in order.
fn deliver(desk: &Desk, receiver: &str, fake: &Fake, count: usize) -> Vec<Value> {
    let config = desk.house.config(receiver, &fake.url);
    let (http, clock) = (Arc::new(UreqHttp::with_timeout(Duration::from_secs(5))), Arc::new(FastClock::new(100)));
    let delivery = Delivery::start(&desk.house.db(), &config, desk.alerts.bell(), http, clock).unwrap();
    let pending = PageFilter { state: Some("pending".to_owned()), ..PageFilter::default() };
    eventually(|| desk.reader().outbox(&pending).unwrap().is_empty(), "everything sent");
    delivery.shutdown();
    assert_eq!(fake.received().len(), count);
    fake.received().iter().filter(|r| r.status < 300).map(super::fake::Received::json).collect()
}

#[test]
fn pagerduty_resolves_the_alert_that_the_page_opened() {
    let mut desk = Desk::new();
    desk.record(&[provisional(100, 100)], &up_to(0));
    desk.record(&[retracted(100, 100)], &up_to(10_000));
    // The page waits for a receiver that is down; its resolution stays behind it.
    let busy = Reply::Status(503, "", "");
    let fake = Fake::start([busy.clone(), busy], Reply::Status(202, "", "{\"status\":\"success\"}"));
    let bodies = deliver(&desk, "pd", &fake, 4);
    let actions: Vec<_> = bodies.iter().map(|b| b["event_action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["trigger", "resolve"]);
    assert_eq!(bodies[0]["payload"]["custom_details"]["standing"], "provisional");
    assert_eq!(bodies[0]["dedup_key"], bodies[1]["dedup_key"]);
    assert_eq!(bodies[0]["routing_key"], bodies[1]["routing_key"]);
    assert_eq!(bodies[1].as_object().unwrap().len(), 3);
}

#[test]
fn a_webhook_hears_that_the_incident_is_closed() {
    let mut desk = Desk::with(|config| config.route.as_mut().unwrap().receiver = Some("hook".to_owned()));
    desk.record(&[provisional(100, 100)], &up_to(0));
    desk.record(&[retracted(100, 100)], &up_to(10_000));
    let fake = Fake::start([], Reply::Status(200, "", ""));
    let bodies = deliver(&desk, "hook", &fake, 2);
    let check = |body: &Value, expected: [(&str, Value); 5]| {
        for (pointer, value) in expected {
            assert_eq!(body.pointer(pointer), Some(&value), "{pointer}");
        }
    };
    check(
        &bodies[0],
        [
            ("/activity_id", 1.into()),
            ("/type_uid", 200_401.into()),
            ("/status_id", 1.into()),
            ("/unmapped/stakeout/event", "opened".into()),
            ("/unmapped/stakeout/standing", "provisional".into()),
        ],
    );
    check(
        &bodies[1],
        [
            ("/activity_id", 3.into()),
            ("/type_uid", 200_403.into()),
            ("/status_id", 4.into()),
            ("/unmapped/stakeout/event", "retracted".into()),
            ("/message", "Retracted: ann read 21 secrets in ten minutes".into()),
        ],
    );
    assert_eq!(bodies[0]["finding_info"]["uid"], bodies[1]["finding_info"]["uid"]);
    let received = fake.received();
    assert_ne!(received[0].headers["webhook-id"], received[1].headers["webhook-id"]);
}

/// The tables as format 1 had them.
const FORMAT_1: &str = "
CREATE TABLE format (version INTEGER NOT NULL);
INSERT INTO format VALUES (1);
CREATE TABLE findings (
    id TEXT NOT NULL, origin TEXT NOT NULL, incident TEXT NOT NULL, rule TEXT NOT NULL, severity INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, recorded INTEGER NOT NULL, finding TEXT NOT NULL,
    PRIMARY KEY (id, origin)
) WITHOUT ROWID;
CREATE INDEX findings_incident ON findings (incident);
CREATE INDEX findings_last ON findings (last);
CREATE TABLE incidents (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, rule TEXT NOT NULL, origin TEXT NOT NULL, entity TEXT NOT NULL,
    episode INTEGER NOT NULL, title TEXT NOT NULL, summary TEXT NOT NULL, severity INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, findings INTEGER NOT NULL,
    opened INTEGER NOT NULL, updated INTEGER NOT NULL,
    flooded INTEGER NOT NULL DEFAULT 0,
    merged_into TEXT
);
CREATE INDEX incidents_key ON incidents (rule, origin, entity, last);
CREATE INDEX incidents_last ON incidents (last);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, receiver TEXT NOT NULL, incident TEXT NOT NULL,
    created INTEGER NOT NULL, payload TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0, next_attempt INTEGER NOT NULL DEFAULT 0,
    finished INTEGER, last_error TEXT
);
CREATE INDEX outbox_pending ON outbox (receiver, seq) WHERE state = 'pending';
CREATE INDEX outbox_order ON outbox (receiver, incident, seq) WHERE state = 'pending';
CREATE INDEX outbox_incident ON outbox (incident);
CREATE TABLE attempts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, outbox INTEGER NOT NULL, time INTEGER NOT NULL,
    outcome TEXT NOT NULL, status INTEGER, error TEXT, latency_us INTEGER
);
CREATE INDEX attempts_outbox ON attempts (outbox);
CREATE TABLE hours (rule TEXT NOT NULL, hour INTEGER NOT NULL, incidents INTEGER NOT NULL, PRIMARY KEY (rule, hour));
CREATE TABLE frontier_offsets (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
);
CREATE TABLE frontier_boundaries (rule TEXT PRIMARY KEY, boundary INTEGER NOT NULL);
INSERT INTO frontier_boundaries VALUES ('burst', 105);
";

#[test]
fn a_database_of_format_1_is_read_and_brought_up_to_date() {
    let house = House::new();
    let db = rusqlite::Connection::open(house.db()).unwrap();
    db.execute_batch(FORMAT_1).unwrap();
    let old = confirmed(100, 105);
    let mut json = serde_json::to_value(&old).unwrap();
    for key in ["standing", "late", "learning", "historical"] {
        json.as_object_mut().unwrap().remove(key).unwrap();
    }
    let entity = serde_json::to_string(&old.entity).unwrap();
    db.execute(
        "INSERT INTO findings VALUES (?1, 'live', 'i1', 'burst', 4, 100, 105, 7, ?2)",
        (&old.id, json.to_string()),
    )
    .unwrap();
    db.execute(
        "INSERT INTO incidents VALUES (1, 'i1', 'burst', 'live', ?1, 1, 't', 's', 4, 100, 105, 1, 7, 7, 0, NULL)",
        [entity],
    )
    .unwrap();
    let check = |expected_format: i64| {
        let reader = Reader::open(&house.db()).unwrap();
        let found = reader.findings(&Filter::default()).unwrap();
        assert_eq!((found.len(), &found[0].finding), (1, &old));
        assert_eq!(reader.findings_by_id(&old.id[..8]).unwrap(), found);
        let incidents = reader.incidents(&Filter::default()).unwrap();
        assert_eq!((incidents.len(), incidents[0].provisional, incidents[0].retracted), (1, 0, None));
        let standings = reader.standings(&old).unwrap();
        assert_eq!((standings.len(), standings[0].standing, standings[0].recorded), (1, Standing::Confirmed, 7));
        assert_eq!(standings[0].events, 6);
        let format: i64 = db.query_row("SELECT max(version) FROM format", [], |row| row.get(0)).unwrap();
        assert_eq!(format, expected_format);
    };
    check(1);
    let mut alerts = Alerts::open(&house.db(), &house.config("pd", "http://x")).unwrap();
    check(2);
    // The incident goes on where it was; opening again changes nothing.
    let recorded = alerts.record(&[confirmed(100, 107), provisional(110, 110)], &up_to(107), 9).unwrap();
    assert_eq!(recorded, Recorded { findings: 1, extended: 1, ..Recorded::default() });
    drop(alerts);
    let alerts = Alerts::open(&house.db(), &Config::default()).unwrap();
    assert_eq!(alerts.provisional().unwrap(), [provisional(110, 110)]);
    assert_eq!(alerts.frontier().unwrap(), up_to(107));
    // The same indexes as a database that was made now.
    let indexes = |path: &std::path::Path| -> Vec<String> {
        let db = rusqlite::Connection::open(path).unwrap();
        let mut query = db.prepare("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let new = Desk::new();
    assert_eq!(indexes(&house.db()), indexes(&new.house.db()));
}

/// What is said of one finding over time, and what it must be in the end.
fn story(random: &mut StdRng, user: &str, first: i64) -> (Vec<Finding>, Standing) {
    use Standing::{Confirmed, Provisional, Retracted};
    let word = |standing, last| held(user, first, first + last, standing);
    let quiet = |f: Finding| if first % 2 == 0 { learning(f) } else { historical(f) };
    match random.random_range(0..7) {
        0 => (vec![word(Confirmed, 0), word(Confirmed, random.random_range(0..9))], Confirmed),
        1 => (vec![word(Provisional, 0), word(Provisional, 4), word(Confirmed, random.random_range(0..9))], Confirmed),
        2 => (vec![word(Provisional, 0), word(Retracted, 0)], Retracted),
        3 => (vec![word(Provisional, 3), word(Retracted, 0), late(word(Confirmed, 1))], Confirmed),
        4 => (vec![quiet(word(Confirmed, 0))], Confirmed),
        5 => (vec![late(word(Confirmed, 2))], Confirmed),
        _ => (vec![word(Provisional, 0)], Provisional),
    }
}

#[test]
fn any_order_portion_and_crash_settles_the_same_and_pages_once() {
    for _ in 0..60 {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        any_order(&mut StdRng::seed_from_u64(seed));
    }
}

fn any_order(random: &mut StdRng) {
    let mut desk = Desk::new();
    let mut stories = BTreeMap::new();
    for _ in 0..random.random_range(1..25) {
        let (user, first) = (["ann", "bob"][random.random_range(0..2)], random.random_range(0..400));
        stories.entry((user, first)).or_insert_with(|| story(random, user, first));
    }
    let expected: BTreeMap<String, Standing> =
        stories.iter().map(|((user, first), (_, end))| (held(user, *first, *first, *end).id, *end)).collect();
    let words = interleaved(random, stories.into_values().map(|(words, _)| words).collect());
    let mut boundary = 0;
    let mut rest = words.as_slice();
    while !rest.is_empty() {
        let (portion, later) = rest.split_at(random.random_range(1..=rest.len()));
        boundary += random.random_range(0..150);
        desk.record(portion, &up_to(boundary));
        if random.random_bool(0.4) {
            // As after a crash: opened again, and the same portion evaluated again.
            desk.alerts = Alerts::open(&desk.house.db(), &desk.house.config("pd", "http://x")).unwrap();
            assert_eq!(desk.record(portion, &up_to(boundary)), Recorded::default());
        }
        rest = later;
    }
    desk.record(&[], &up_to(100_000));
    let settled: BTreeMap<String, Standing> = desk.findings().into_iter().map(|f| (f.id, f.standing)).collect();
    assert_eq!(settled, expected);
    let open = expected.values().filter(|s| **s == Standing::Provisional).count();
    assert_eq!(desk.alerts.provisional().unwrap().len(), open);
    pages_agree_with_incidents(&desk);
}

/// One after the other of each, otherwise in any order.
fn interleaved(random: &mut StdRng, mut stories: Vec<Vec<Finding>>) -> Vec<Finding> {
    let mut words = Vec::new();
    while !stories.is_empty() {
        let which = random.random_range(0..stories.len());
        words.push(stories[which].remove(0));
        stories.retain(|story| !story.is_empty());
    }
    words
}

/// Each incident that may page has done so once, each that is retracted has said so once and behind its page, and none
/// is silent over a finding that stands.
fn pages_agree_with_incidents(desk: &Desk) {
    let mut told: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    desk.told().into_iter().for_each(|(incident, what)| told.entry(incident).or_default().push(what));
    let db = rusqlite::Connection::open(desk.house.db()).unwrap();
    let mut query = db.prepare("SELECT id, quiet IS NOT NULL, merged_into, closed IS NOT NULL FROM incidents").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    let rows: Vec<(String, bool, Option<String>, bool)> = rows.unwrap().map(Result::unwrap).collect();
    let closed: BTreeMap<&str, (bool, Option<&str>)> =
        rows.iter().map(|(id, _, into, closed)| (id.as_str(), (*closed, into.as_deref()))).collect();
    for (id, quiet, _, _) in &rows {
        let mut whole = id.as_str();
        while let Some(into) = closed[whole].1 {
            whole = into;
        }
        let words = told.get(id).cloned().unwrap_or_default();
        match (quiet, closed[whole].0, words.as_slice()) {
            (true, false, []) | (false, true, ["opened", "retracted"]) | (false, false, ["opened"]) => {}
            // Part of one that paged, before it could page itself: nothing was owed for it.
            (_, true, []) | (false, false, []) => {
                assert!(*quiet || id == whole || told.contains_key(whole), "{id} is silent, and so is {whole}");
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    for incident in desk.incidents() {
        let filter = Filter { incident: Some(incident.id.clone()), ..Filter::default() };
        let findings = desk.reader().findings(&filter).unwrap();
        let stands = findings.iter().any(|f| f.finding.standing != Standing::Retracted);
        assert_eq!(incident.retracted.is_some(), !stands, "{incident:?}");
        let loud = findings.iter().any(|f| !f.finding.learning && !f.finding.historical);
        assert!(stands || incident.retracted.is_some());
        assert!(!stands || !loud || incident.quiet.is_none(), "{incident:?}");
    }
}
