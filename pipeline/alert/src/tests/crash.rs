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
use super::{House, at, config};
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

#[test]
fn killed_at_random_nothing_is_lost() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let random = &mut StdRng::seed_from_u64(seed);
    let house = House::new();
    let script = (0..40).map(|i| if i % 7 == 3 { Reply::Status(503, "", "") } else { Reply::Status(200, "", "") });
    let fake = Fake::start(script.collect::<Vec<_>>(), Reply::Status(200, "", ""));
    for _ in 0..KILLS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::crash::victim"])
            .env(FOLDER, house.path())
            .env(URL, &fake.url)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(10..200)));
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
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
