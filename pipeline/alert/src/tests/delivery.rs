//! Delivery against a scripted receiver over real sockets, with a clock that runs a hundred times as fast.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::{Finding, Frontier};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fake::{Fake, FastClock, Received, Reply, eventually};
use super::{House, at};
use crate::delivery::Worker;
use crate::{Alerts, Attempt, Clock, Config, Delivery, Http, PageFilter, Reader, SystemClock, UreqHttp};

const OK: Reply = Reply::Status(202, "", "{\"status\":\"success\"}");
const BUSY: Reply = Reply::Status(503, "", "");

struct Bench {
    house: House,
    config: Config,
    alerts: Alerts,
    delivery: Option<Delivery>,
    time: i64,
}

impl Bench {
    fn new(kind: &str, fake: &Fake) -> Bench {
        let house = House::new();
        let config = house.config(kind, &fake.url);
        let alerts = Alerts::open(&house.db(), &config).unwrap();
        Bench { house, config, alerts, delivery: None, time: 0 }
    }

    fn start(&mut self) {
        let (http, clock) = (http(), Arc::new(FastClock::new(100)));
        let delivery = Delivery::start(&self.house.db(), &self.config, self.alerts.bell(), http, clock).unwrap();
        self.delivery = Some(delivery);
    }

    fn stop(&mut self) {
        self.delivery.take().unwrap().shutdown();
    }

    /// Opens so many incidents, each later in event time than the ones before.
    fn incidents(&mut self, count: i64) {
        let findings: Vec<Finding> = (0..count).map(|i| at("r", "ann", self.time + i * 1_000)).collect();
        self.time += count * 1_000;
        self.alerts.record(&findings, &Frontier::default(), SystemClock.now()).unwrap();
    }

    /// The pages' states, oldest first.
    fn states(&self) -> Vec<String> {
        self.pages().into_iter().map(|p| p.state).collect()
    }

    fn pages(&self) -> Vec<crate::Page> {
        let mut pages = Reader::open(&self.house.db()).unwrap().outbox(&PageFilter::default()).unwrap();
        pages.reverse();
        pages
    }

    fn attempts(&self, page: usize) -> Vec<Attempt> {
        Reader::open(&self.house.db()).unwrap().attempts(&self.pages()[page].id).unwrap()
    }

    fn wait_for_states(&self, expected: &[&str]) {
        eventually(|| self.states() == expected, &format!("states {expected:?}"));
    }
}

fn http() -> Arc<dyn Http> {
    Arc::new(UreqHttp::with_timeout(Duration::from_millis(300)))
}

fn keys(received: &[Received]) -> Vec<String> {
    received.iter().map(|r| r.json()["dedup_key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_incident_is_delivered_once() {
    let fake = Fake::start([], OK);
    let mut bench = Bench::new("pd", &fake);
    bench.incidents(1);
    bench.start();
    bench.wait_for_states(&["delivered"]);
    bench.incidents(1); // the bell, not a timer, brings this one
    bench.wait_for_states(&["delivered", "delivered"]);
    bench.stop();
    bench.start();
    std::thread::sleep(Duration::from_millis(50));
    bench.stop();
    assert_eq!(fake.received().len(), 2);
}

#[test]
fn what_may_heal_is_retried_under_the_same_id() {
    let script = [
        Reply::Status(500, "", "oops"),
        Reply::Status(429, "Retry-After: 20", "slow down"),
        Reply::Reset,
        Reply::Slow(Duration::from_millis(400)),
        Reply::Status(302, "Location: http://127.0.0.1:1/", ""),
        Reply::Status(200, "", "<html>portal</html>"),
    ];
    let fake = Fake::start(script, OK);
    let mut bench = Bench::new("pd", &fake);
    bench.incidents(1);
    bench.start();
    bench.wait_for_states(&["delivered"]);
    bench.stop();
    let received = fake.received();
    assert_eq!(received.len(), 7);
    assert!(received.iter().all(|r| r.body == received[0].body), "every attempt sends the same bytes");
    let attempts = bench.attempts(0);
    let outcomes: Vec<_> = attempts.iter().map(|a| (a.outcome.as_str(), a.status)).collect();
    let expected = [
        ("failed", Some(500)),
        ("failed", Some(429)),
        ("unknown", None),
        ("unknown", None),
        ("failed", Some(302)),
        ("failed", Some(200)),
        ("accepted", Some(202)),
    ];
    assert_eq!(outcomes, expected);
    assert!(attempts[2].time - attempts[1].time >= 20_000_000, "Retry-After is honoured");
    assert_eq!(bench.pages()[0].attempts, 7);
}

#[test]
fn a_refused_page_is_given_up_and_the_next_goes_on() {
    let check = |status: u16| {
        let fake = Fake::start([Reply::Status(status, "", "{\"status\":\"invalid event\"}")], OK);
        let mut bench = Bench::new("pd", &fake);
        bench.incidents(2);
        bench.start();
        bench.wait_for_states(&["dead", "delivered"]);
        bench.stop();
        let error = bench.pages()[0].last_error.clone().unwrap();
        assert!(error.contains(&status.to_string()) && error.contains("invalid event"), "{error}");
        assert_eq!(fake.received().len(), 2);
    };
    check(400);
    check(401);
    check(410);
}

#[test]
fn a_webhook_that_is_gone_gets_nothing_until_a_restart() {
    let fake = Fake::start([Reply::Status(410, "", "")], OK);
    let mut bench = Bench::new("hook", &fake);
    bench.incidents(2);
    bench.start();
    bench.wait_for_states(&["dead", "pending"]);
    bench.incidents(1);
    std::thread::sleep(Duration::from_millis(50));
    bench.stop();
    assert_eq!(fake.received().len(), 1);
    bench.start();
    bench.wait_for_states(&["dead", "delivered", "delivered"]);
    bench.stop();
}

#[test]
fn order_is_kept_within_an_incident_and_not_beyond() {
    let fake = Fake::start([BUSY, OK, BUSY], OK);
    let mut bench = Bench::new("pd", &fake);
    bench.incidents(2);
    // A second page of the first incident, as an update would be.
    rusqlite::Connection::open(bench.house.db())
        .unwrap()
        .execute(
            "INSERT INTO outbox (id, receiver, incident, created, payload)
             SELECT 'page_update', receiver, incident, created, replace(payload, '\"episode\":1', '\"episode\":9')
             FROM outbox WHERE seq = 1",
            [],
        )
        .unwrap();
    bench.start();
    bench.wait_for_states(&["delivered", "delivered", "delivered"]);
    bench.stop();
    let episodes: Vec<String> =
        keys(&fake.received()).iter().map(|k| k.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(episodes, ["1", "2", "1", "1", "9"]);
}

#[test]
fn an_outage_is_drained_in_order_without_loss_or_repetition() {
    let fake = Fake::start(vec![BUSY; 12], OK);
    let mut bench = Bench::new("pd", &fake);
    bench.incidents(15);
    bench.start();
    bench.wait_for_states(&["delivered"; 15]);
    bench.stop();
    let received = fake.received();
    let accepted = keys(&received.iter().filter(|r| r.status == 202).cloned().collect::<Vec<_>>());
    let mut times = BTreeMap::new();
    accepted.iter().for_each(|key| *times.entry(key.clone()).or_insert(0) += 1);
    assert_eq!((times.len(), times.values().max()), (15, Some(&1)));
    // The first accepted is whichever page probed; all after it are in order of their incidents.
    let episodes: Vec<u32> = accepted[1..].iter().map(|k| k.rsplit('/').next().unwrap().parse().unwrap()).collect();
    assert!(episodes.is_sorted(), "{episodes:?}");
    assert_eq!(received.len(), 27, "a receiver that is down is probed, not hammered");
}

#[test]
fn a_crash_between_sending_and_marking_sends_again_under_the_same_id() {
    let fake = Fake::start([], OK);
    let mut bench = Bench::new("hook", &fake);
    bench.incidents(1);
    let mut buckets = std::collections::HashMap::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let hook = &bench.config.receivers[1];
    let mut worker = Worker::new(&bench.house.db(), hook, http(), clock, &mut buckets).unwrap();
    let db = rusqlite::Connection::open(bench.house.db()).unwrap();
    let page = crate::outbox::due(&db, "hook", SystemClock.now()).unwrap().unwrap();
    let notification = serde_json::from_str(&page.payload).unwrap();
    worker.send(&page, &notification).unwrap();
    drop(worker); // killed: sent, accepted, not marked
    assert_eq!(bench.states(), ["pending"]);
    bench.start();
    bench.wait_for_states(&["delivered"]);
    bench.stop();
    let received = fake.wait_for(2);
    assert_eq!(received[0].headers["webhook-id"], received[1].headers["webhook-id"]);
    assert_eq!(received[0].body, received[1].body);
    let outcomes: Vec<_> = bench.attempts(0).into_iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, ["unknown", "accepted"]);
}

#[test]
fn faults_and_restarts_lose_nothing_and_repeat_only_the_unknown() {
    for _ in 0..5 {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        faults(&mut StdRng::seed_from_u64(seed));
    }
}

fn faults(random: &mut StdRng) {
    let faults = [BUSY, Reply::Reset, OK, OK, Reply::Status(429, "Retry-After: 1", "")];
    let script: Vec<Reply> = (0..30).map(|_| faults[random.random_range(0..faults.len())].clone()).collect();
    let fake = Fake::start(script, OK);
    let mut bench = Bench::new("pd", &fake);
    let mut opened = 0;
    for _ in 0..6 {
        let count = random.random_range(0..4);
        bench.incidents(count);
        opened += count;
        bench.start();
        std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
        bench.stop();
    }
    bench.start();
    bench.wait_for_states(&vec!["delivered"; usize::try_from(opened).unwrap()]);
    bench.stop();
    let received = fake.received();
    for page in 0..bench.pages().len() {
        let key = format!("stakeout/{}/{}", bench.pages()[page].incident, page + 1);
        let accepted = received.iter().filter(|r| r.status == 202 && r.json()["dedup_key"] == key).count();
        assert_eq!(accepted, 1, "{key}"); // a reset connection here has accepted nothing
        assert_eq!(bench.attempts(page).last().unwrap().outcome, "accepted");
    }
}

#[test]
fn recording_does_not_wait_for_a_pager() {
    let fake = Fake::start([], Reply::Slow(Duration::from_secs(2)));
    let mut bench = Bench::new("pd", &fake);
    bench.start();
    bench.incidents(1);
    fake.wait_for(1);
    let begun = Instant::now();
    for _ in 0..10 {
        bench.incidents(1);
    }
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    bench.stop();
}

#[test]
fn a_page_that_is_too_old_is_given_up_unsent() {
    let fake = Fake::start([], OK);
    let mut bench = Bench::new("pd", &fake);
    bench.config.receivers[0].max_age = Some("1h".parse().unwrap());
    let long_ago = SystemClock.now() - 2 * 3_600_000_000;
    bench.alerts.record(&[at("r", "ann", 0)], &Frontier::default(), long_ago).unwrap();
    bench.start();
    bench.wait_for_states(&["dead"]);
    bench.stop();
    assert_eq!(fake.received().len(), 0);
}

#[test]
fn a_missing_secret_is_told_at_the_start() {
    let fake = Fake::start([], OK);
    let bench = Bench::new("pd", &fake);
    std::fs::remove_file(bench.house.path().join("pd")).unwrap();
    std::fs::write(bench.house.path().join("whsec"), "c2hvcnQ=").unwrap();
    let started = Delivery::start(&bench.house.db(), &bench.config, bench.alerts.bell(), http(), Arc::new(SystemClock));
    let error = started.err().expect("refused").to_string();
    assert!(error.contains("receiver `pd`: cannot read secret file"), "{error}");
    assert!(error.contains("receiver `hook`: a secret has 5 bytes") && error.contains("hint: "), "{error}");
}
