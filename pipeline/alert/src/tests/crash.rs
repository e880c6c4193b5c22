//! `kill -9` at random moments: the test starts itself as another process that records and pages, kills it, and starts
//! it again. Nothing may be lost, and a page may be repeated only by a kill.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fake::{Fake, FastClock, Reply, eventually};
use event::{Finding, FindingTime, Standing};

use super::{House, at, config, finding};
use crate::{Alerts, Clock, Config, Delivery, Filter, PageFilter, Reader, SystemClock, UreqHttp};

const KILLS: usize = 15;
const FOLDER: &str = "STAKEOUT_TEST_FOLDER";
const URL: &str = "STAKEOUT_TEST_URL";

fn start(folder: &Path, url: &str) -> (Alerts, Delivery) {
    // A quick machine records more than the cap on pages an hour, which is not what is tested here.
    let config = Config { pages_per_hour_max: 1_000_000, ..config(folder, "hook", url) };
    let alerts = Alerts::open(&folder.join("alerts.db"), &config).unwrap();
    let (http, clock) = (Arc::new(UreqHttp::new()), Arc::new(FastClock::new(100)));
    let delivery = Delivery::start(&folder.join("alerts.db"), &config, alerts.bell(), http, clock).unwrap();
    (alerts, delivery)
}

/// What is killed: goes on from the frontier, one incident after the other, like detection would.
#[test]
fn victim() {
    let (Ok(folder), Ok(url)) = (std::env::var(FOLDER), std::env::var(URL)) else { return };
    let (mut alerts, _delivery) = start(Path::new(&folder), &url);
    loop {
        let mut frontier = alerts.frontier().unwrap();
        let next = frontier.offsets.entry(("audit".into(), 0)).or_insert(0);
        let finding = at("r", "ann", *next * 1_000);
        *next += 1;
        alerts.record(&[finding], &frontier, SystemClock.now()).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What is killed: one incident after the other fires early and is retracted in the next step.
#[test]
fn unsettled_victim() {
    let (Ok(folder), Ok(url)) = (std::env::var(FOLDER), std::env::var(URL)) else { return };
    let (mut alerts, _delivery) = start(Path::new(&folder), &url);
    loop {
        let mut frontier = alerts.frontier().unwrap();
        let next = frontier.offsets.entry(("audit".into(), 0)).or_insert(0);
        let (story, step) = (*next / 2, *next % 2);
        *next += 1;
        let standing = if step == 0 { Standing::Provisional } else { Standing::Retracted };
        // Windows over its rows are final when the next story begins.
        frontier.boundaries.insert("r".to_owned(), story * 1_000);
        alerts.record(&[run_of(story, standing)], &frontier, SystemClock.now()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn run_of(story: i64, standing: Standing) -> Finding {
    let first = story * 1_000;
    let time = FindingTime::Run { first, last: first, window_us: 500, every_us: 1 };
    Finding { standing, ..finding("r", "ann", time) }
}

/// A receiver that is busy now and then, and victims of this name, one after the other.
fn kill_at_random(house: &House, victim: &str) -> Fake {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let random = &mut StdRng::seed_from_u64(seed);
    let script = (0..40).map(|i| if i % 7 == 3 { Reply::Status(503, "", "") } else { Reply::Status(200, "", "") });
    let fake = Fake::start(script.collect::<Vec<_>>(), Reply::Status(200, "", ""));
    for _ in 0..KILLS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", victim])
            .env(FOLDER, house.path())
            .env(URL, &fake.url)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(10..200)));
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    fake
}

#[test]
fn killed_at_random_each_page_is_resolved_once_and_behind_it() {
    let house = House::new();
    let fake = kill_at_random(&house, "tests::crash::unsettled_victim");
    let (mut alerts, delivery) = start(house.path(), &fake.url);
    let done = *alerts.frontier().unwrap().offsets.values().next().expect("the victim recorded something");
    let mut frontier = alerts.frontier().unwrap();
    frontier.boundaries.insert("r".to_owned(), done * 1_000);
    let open = done % 2;
    assert_eq!(alerts.provisional().unwrap().len(), usize::try_from(open).unwrap());
    alerts.record(&[run_of(done / 2, Standing::Retracted)], &frontier, SystemClock.now()).unwrap();
    let stories = usize::try_from(done / 2 + open).unwrap();
    let reader = Reader::open(&house.db()).unwrap();
    let delivered = PageFilter { state: Some("delivered".to_owned()), ..PageFilter::default() };
    eventually(|| reader.outbox(&delivered).unwrap().len() == 2 * stories, "all pages and retractions");
    delivery.shutdown();
    let incidents = reader.incidents(&Filter::default()).unwrap();
    assert_eq!(incidents.len(), stories);
    assert!(incidents.iter().all(|i| i.retracted.is_some()));
    let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut repeated = 0;
    for request in fake.received().into_iter().filter(|r| r.status == 200) {
        let body = request.json();
        let incident = heard.entry(body["finding_info"]["uid"].to_string()).or_default();
        let event = body["unmapped"]["stakeout"]["event"].as_str().unwrap().to_owned();
        match incident.last() == Some(&event) {
            true => repeated += 1,
            false => incident.push(event),
        }
    }
    assert_eq!(heard.len(), stories);
    assert!(heard.values().all(|events| *events == ["opened", "retracted"]), "{heard:?}");
    assert!(repeated <= KILLS, "{repeated} repetitions by {KILLS} kills");
    println!("{stories} incidents, {repeated} requests repeated by {KILLS} kills");
}

#[test]
fn killed_at_random_nothing_is_lost() {
    let house = House::new();
    let fake = kill_at_random(&house, "tests::crash::victim");
    let (alerts, delivery) = start(house.path(), &fake.url);
    let recorded = alerts.frontier().unwrap().offsets.values().sum::<i64>();
    let reader = Reader::open(&house.db()).unwrap();
    let delivered = PageFilter { state: Some("delivered".to_owned()), ..PageFilter::default() };
    let recorded = usize::try_from(recorded).unwrap();
    eventually(|| reader.outbox(&delivered).unwrap().len() == recorded, "all pages");
    delivery.shutdown();
    assert!(recorded > 0, "the victim lived long enough to record something");
    assert_eq!(reader.incidents(&Filter::default()).unwrap().len(), recorded);
    let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
    for request in fake.received().into_iter().filter(|r| r.status == 200) {
        *accepted.entry(request.headers["webhook-id"].clone()).or_default() += 1;
    }
    assert_eq!(accepted.len(), recorded);
    let repeated: usize = accepted.values().map(|times| times - 1).sum();
    assert!(repeated <= KILLS, "{repeated} repetitions by {KILLS} kills");
    assert_eq!(reader.outbox(&PageFilter::default()).unwrap().len(), recorded);
    println!("{recorded} pages, {repeated} repeated by {KILLS} kills");
}
