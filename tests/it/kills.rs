//! The line over the embedded log, killed again and again, at random moments and at named points of a seal, a
//! compaction and a retention run, while events keep coming: every event is stored exactly once, no file is left that
//! the manifest does not name, and the process is ready again soon after.
//!
//! `STAKEOUT_KILLS` (default 60) says how often, `STAKEOUT_TEST_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use event::Source;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use stakeout::config::Topic;
use stakeout::generate::{Sink, topics};
use synthetic::{Event, Generator, Options};

use crate::line;
use crate::process::{Run, finish, free_port, root, stakeout};
use crate::stored;

const SECOND: i64 = 1_000_000;
/// Events handed to the log per life of the process, in portions while it lives.
const PORTION: usize = 40;
const PORTIONS: usize = 6;
/// A named point is waited for so long; then the kill comes at whatever it is doing.
const POINT_WAIT: Duration = Duration::from_secs(3);
const SIGKILL: i32 = 9;
/// Further lives for points that were not met.
const TRIES_MAX: usize = 100;

#[test]
fn killed_at_every_named_point_and_at_random_everything_is_stored_exactly_once() {
    let seed = std::env::var("STAKEOUT_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    let kills: usize = std::env::var("STAKEOUT_KILLS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    println!("seed {seed}, {kills} kills");
    let mut rng = StdRng::seed_from_u64(seed);
    let setup = Setup::new();
    let mut stream = Stream::new(&setup, seed);
    let mut tally = Tally::default();

    let mut lives = 0;
    // A point is met only when there is something to merge or to delete: those not met yet have their turn first.
    while lives < kills || (lives < kills + TRIES_MAX && !tally.open_points().is_empty()) {
        let open = tally.open_points();
        let point = match open.choose(&mut rng) {
            Some(point) => Some(*point),
            None if rng.random_bool(0.5) => store::CRASH_POINTS.choose(&mut rng).copied(),
            None => None,
        };
        live_and_die(&setup, &mut stream, point, &mut rng, &mut tally);
        lives += 1;
    }
    setup.run_to_the_end(&stream);

    println!("{tally}");
    stored::assert_exactly_once(&setup.data, &stream.recent, &stream.expired);
    // No orphan, no damaged file, no row twice.
    finish(stakeout().args(["verify", "--data-dir"]).arg(&setup.data), &[0]);
    let never = tally.open_points();
    assert!(never.is_empty(), "seed {seed}: never killed at {never:?}");
}

/// Starts the process, feeds it, and kills it at the named point, or at a random moment.
fn live_and_die(setup: &Setup, stream: &mut Stream, point: Option<&'static str>, rng: &mut StdRng, tally: &mut Tally) {
    let turns = if point.is_some_and(|point| tally.at_points.contains_key(point)) { 2 } else { 1 };
    let armed = point.map(|point| format!("{point}:{}", rng.random_range(1..=turns)));
    let envs: Vec<(&str, &str)> = armed.iter().map(|armed| (store::CRASH_AT, armed.as_str())).collect();
    let mut run = Run::start_with(&setup.config, setup.listen, &setup.log, &envs);
    let started = Instant::now();
    let lives = match point {
        Some(_) => POINT_WAIT,
        None => Duration::from_millis(rng.random_range(20..900)),
    };
    let mut ready = None;
    let mut portions = 0;
    while started.elapsed() < lives {
        if let Some(status) = run.ended() {
            assert_eq!(status.signal(), Some(SIGKILL), "ended by itself with {status}:\n{}", run.said());
            tally.died_at(point.expect("only an armed point kills from within"));
            break;
        }
        if ready.is_none() && run.is_ready() {
            ready = Some(started.elapsed());
        }
        if portions < PORTIONS {
            stream.feed(PORTION);
            portions += 1;
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    if run.ended().is_none() {
        run.kill();
        tally.at_random += 1;
    }
    tally.ready.extend(ready);
}

/// How the process died, and how soon it was ready.
#[derive(Default)]
struct Tally {
    at_points: BTreeMap<&'static str, usize>,
    at_random: usize,
    ready: Vec<Duration>,
}

impl Tally {
    /// Not met yet.
    fn open_points(&self) -> Vec<&'static str> {
        store::CRASH_POINTS.into_iter().filter(|point| !self.at_points.contains_key(point)).collect()
    }

    fn died_at(&mut self, point: &'static str) {
        *self.at_points.entry(point).or_default() += 1;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "killed {} times at random, at named points {:?}", self.at_random, self.at_points)?;
        let mut ready = self.ready.clone();
        ready.sort();
        let at = |share: f64| ready.get((ready.len() as f64 * share) as usize).or(ready.last());
        write!(f, "ready after p50 {:?}, p99 {:?}, max {:?} ({} starts)", at(0.5), at(0.99), ready.last(), ready.len())
    }
}

struct Setup {
    _dir: tempfile::TempDir,
    data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    listen: std::net::SocketAddr,
    topics: Vec<Topic>,
}

impl Setup {
    fn new() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let (data, config, log) = (dir.path().join("data"), dir.path().join("c.yaml"), dir.path().join("log"));
        let (listen, topics) = (free_port(), topics());
        // One that remembers, so that what expires has to be taken in before it goes.
        let first_seen = "cloudtrail/aws-secret-first-seen-reader.sql";
        let rules = line::rules(dir.path());
        std::fs::copy(root().join("detections").join(first_seen), rules.join(first_seen)).unwrap();
        std::fs::write(&config, text(&data, &rules, listen, &topics)).unwrap();
        Setup { data, config, log, listen, topics, _dir: dir }
    }

    fn run_to_the_end(&self, stream: &Stream) {
        let mut run = Run::start(&self.config, self.listen, &self.log);
        let started = Instant::now();
        while stored::positions(&self.data) != stream.ends {
            run.assert_running();
            assert!(started.elapsed() < Duration::from_secs(120), "{:?}", stored::positions(&self.data));
            std::thread::sleep(Duration::from_millis(100));
        }
        run.wait_until_ready();
        run.terminate();
    }
}

/// Seals often, compacts and deletes eagerly: the shorter the cycle, the more of it a kill meets. A few rules, for the
/// same reason: planning the whole pack takes longer than these lives.
fn text(data: &Path, rules: &Path, listen: std::net::SocketAddr, topics: &[Topic]) -> String {
    let topics: String = topics
        .iter()
        .map(|topic| {
            let cluster = topic.cluster.as_ref().map(|c| format!(", cluster: {c}")).unwrap_or_default();
            format!("  - {{topic: {}, source: {}{cluster}}}\n", topic.name, topic.source)
        })
        .collect();
    format!(
        "data_dir: {}\ndetections: {}\nlisten: {listen}\nseal: {{bytes: 1MiB, age: 100ms}}\nembedded:\n{topics}store:\n  retention: {{age: 30d, by: event}}\n  compaction: {{every: 100ms, segments: 2}}\n",
        data.display(),
        rules.display()
    )
}

/// What was fed: events of today, which must all be there, and events long past the retention, which may be gone.
struct Stream {
    sink: Sink,
    recent_events: Generator,
    expired_events: Generator,
    recent: BTreeSet<[u8; 16]>,
    expired: BTreeSet<[u8; 16]>,
    ends: BTreeMap<(String, i32), i64>,
    topics: Vec<Topic>,
}

impl Stream {
    fn new(setup: &Setup, seed: u64) -> Stream {
        let now = stakeout::rooms::wall_clock();
        let generator = |seed, start| {
            let short = Options { gap: 4_000, attack_every: 2_000, cloudtrail_delay: 0.001, ..Options::default() };
            Generator::new(Options { seed, start, ..short })
        };
        Stream {
            sink: Sink::embedded(&setup.data.join("log"), &setup.topics).unwrap(),
            recent_events: generator(seed, now - 3_600 * SECOND),
            expired_events: generator(seed ^ 1, now - 400 * 86_400 * SECOND),
            recent: BTreeSet::new(),
            expired: BTreeSet::new(),
            ends: BTreeMap::new(),
            topics: setup.topics.clone(),
        }
    }

    fn feed(&mut self, count: usize) {
        // The table of one source holds only what is long past, so that whole segments fall out of the retention.
        let old = |event: &Event| event.source == Source::CloudTrail;
        let recent: Vec<Event> = self.recent_events.by_ref().take(count).filter(|event| !old(event)).collect();
        let expired: Vec<Event> = self.expired_events.by_ref().take(count).filter(old).collect();
        self.recent.extend(recent.iter().map(hash));
        self.expired.extend(expired.iter().map(hash));
        for events in [recent, expired] {
            for event in &events {
                let topic =
                    self.topics.iter().find(|t| t.source == event.source && t.cluster.as_deref() == event.cluster);
                let topic = topic.expect("the generated world has a topic for each of its events");
                *self.ends.entry((topic.name.clone(), 0)).or_insert(0) += 1;
            }
            self.sink.send(&events).unwrap();
        }
    }
}

fn hash(event: &Event) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(&event.bytes)[..16]);
    hash
}
