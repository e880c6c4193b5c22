//! Sixteen senders of audit batches at full speed: memory stays bounded, and after SIGKILLs every event that was
//! acknowledged is stored exactly once. One whose answer was not seen may be stored, at most once, also if it is
//! sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use event::Source;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::client::{Connection, request};
use super::{KUBERNETES, Setup, bearer, events};
use crate::kafka::Broker;
use crate::process::{Run, sample};
use crate::stored;

const SENDERS: usize = 16;
/// What kube-apiserver's default batch holds at most is 400.
const BATCH_EVENTS: usize = 100;
/// Of which: 32 MiB of bodies and as much while they are copied, 32 MiB unsealed rows in several forms, the log's and
/// the sealer's buffers, the rules.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;
/// With what Kafka's client has on its way out and fetches ahead: 730 MiB was the most that was seen, of events with bodies of up
/// to 220 KB.
const RESIDENT_KAFKA_BYTES_MAX: u64 = 1 << 30;
/// From the first answers to the kill.
const LIVES_MS: std::ops::Range<u64> = 100..600;
const DRAIN_MAX: Duration = Duration::from_secs(240);
const PARTITIONS: i32 = 2;
const BOUNDS: &str = "  in_flight_max: 32MiB\n  backlog_max: 48MiB\n";
const SEAL: &str = "seal: {bytes: 8MiB, age: 1s}\n";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// What the senders know.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeSet<String>,
    /// Sent, and no answer seen.
    unknown: BTreeSet<String>,
    /// Batches without an answer that their sender will repeat.
    repeat: Vec<Batch>,
}

struct Batch {
    ids: Vec<String>,
    request: Vec<u8>,
}

/// Real shapes with ids of our own.
struct Batches {
    templates: Vec<(String, String)>,
    prefix: String,
    made: u64,
}

impl Batches {
    fn new(prefix: String) -> Batches {
        let templates = events(Source::Kubernetes, 50);
        let split = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            let (before, rest) = text.split_once("\"auditID\":\"").unwrap();
            let (_, after) = rest.split_once('"').unwrap();
            (format!("{before}\"auditID\":\""), format!("\"{after}"))
        };
        Batches { templates: templates.into_iter().map(split).collect(), prefix, made: 0 }
    }

    fn next(&mut self) -> Batch {
        let mut body = String::from(r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
        let mut ids = Vec::with_capacity(BATCH_EVENTS);
        for number in 0..BATCH_EVENTS {
            let id = format!("{}-{}", self.prefix, self.made);
            let (before, after) = &self.templates[self.made as usize % self.templates.len()];
            if number > 0 {
                body.push(',');
            }
            body.extend([before.as_str(), &id, after]);
            ids.push(id);
            self.made += 1;
        }
        body.push_str("]}");
        let headers = bearer(KUBERNETES) + "content-type: application/json\r\n";
        Batch { ids, request: request("POST", "/v1/receive/kubernetes", &headers, body.as_bytes()) }
    }
}

/// What was measured.
#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    bytes: AtomicU64,
    waited: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

/// Sends until told to stop or until the process is gone.
fn send(address: SocketAddr, mut batches: Batches, ledger: &Mutex<Ledger>, tally: &Tally, stop: &AtomicBool) {
    let Ok(mut connection) = Connection::try_plain(address) else { return };
    while !stop.load(Ordering::Relaxed) {
        let repeated = ledger.lock().unwrap().repeat.pop();
        let batch = repeated.unwrap_or_else(|| batches.next());
        loop {
            let started = Instant::now();
            match connection.send(&batch.request).map(|answer| (answer.status, answer.body)) {
                Ok((200, _)) => {
                    tally.latencies.lock().unwrap().push(started.elapsed());
                    tally.requests.fetch_add(1, Ordering::Relaxed);
                    tally.bytes.fetch_add(batch.request.len() as u64, Ordering::Relaxed);
                    let mut ledger = ledger.lock().unwrap();
                    batch.ids.iter().for_each(|id| {
                        ledger.unknown.remove(id);
                    });
                    ledger.acknowledged.extend(batch.ids);
                    break;
                }
                Ok((429 | 503, _)) if !stop.load(Ordering::Relaxed) => {
                    tally.waited.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(100));
                }
                Ok((429 | 503, _)) => {
                    // An answer that came too late for the record is one of these, too.
                    ledger.lock().unwrap().unknown.extend(batch.ids);
                    break;
                }
                Ok((status, body)) => panic!("{status}: {body}"),
                Err(_) => {
                    let mut ledger = ledger.lock().unwrap();
                    ledger.unknown.extend(batch.ids.iter().cloned());
                    // Half of the senders will send it again, the others give up.
                    if ledger.repeat.len() < SENDERS / 2 {
                        ledger.repeat.push(batch);
                    }
                    return;
                }
            }
        }
    }
}

/// Runs the senders while `during` lasts; it may kill the process.
fn load(setup: &Setup, round: u64, ledger: &Arc<Mutex<Ledger>>, during: impl FnOnce(&Tally)) -> (Arc<Tally>, Duration) {
    let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let started = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (address, ledger, tally, stop) = (setup.receive, ledger.clone(), tally.clone(), stop.clone());
            let batches = Batches::new(format!("{round}-{sender}"));
            std::thread::spawn(move || send(address, batches, &ledger, &tally, &stop))
        })
        .collect();
    during(&tally);
    let took = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    (tally, took)
}

/// Peak and present resident memory of the process.
fn resident(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    (kib("VmHWM:"), kib("VmRSS:"))
}

fn assert_memory_bounded(run: &Run, bytes_max: u64) -> u64 {
    let (peak, now) = resident(run.pid());
    assert!(peak > 0 && peak < bytes_max, "peak {peak}, now {now}");
    peak
}

/// Every acknowledged event is stored once, every other one at most once, and none that was never sent.
fn assert_stored(setup: &Setup, ledger: &Ledger, seed: u64) {
    let stored = rows_by_id(&setup.data);
    let twice = stored.values().filter(|count| **count > 1).count();
    let lost = ledger.acknowledged.iter().filter(|id| !stored.contains_key(*id)).count();
    let known = |id: &String| ledger.acknowledged.contains(id) || ledger.unknown.contains(id);
    let strange = stored.keys().filter(|id| !known(id)).count();
    assert_eq!((lost, twice, strange), (0, 0, 0), "seed {seed}: lost, stored twice, never sent");
    let unknown = stored.len() - ledger.acknowledged.len();
    println!(
        "{} events acknowledged and stored once; {unknown} of {} unanswered ones too",
        ledger.acknowledged.len(),
        ledger.unknown.len()
    );
    assert!(!ledger.acknowledged.is_empty());
}

/// Rows per event id.
fn rows_by_id(data: &Path) -> BTreeMap<String, u64> {
    let mut rows = BTreeMap::new();
    for batch in stored::query(data, "SELECT json_get_str(raw, 'auditID') FROM kubernetes") {
        let ids = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        for id in ids.as_string::<i32>().iter().flatten() {
            *rows.entry(id.to_owned()).or_insert(0) += 1;
        }
    }
    rows
}

/// Until everything that is in the embedded log is committed.
fn drain(run: &mut Run, at_most: Duration) {
    run.wait_for_metrics("all that was received to be committed", at_most, |metrics| {
        sample(metrics, "stakeout_receiver_backlog_bytes") == Some(0.0)
    });
}

/// Until everything that is on the broker is committed.
fn drain_kafka(setup: &Setup, broker: &Broker, run: &mut Run) {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    let started = Instant::now();
    for partition in 0..PARTITIONS {
        let (_, end) = consumer.fetch_watermarks("audit", partition, Duration::from_secs(10)).unwrap();
        let key = ("audit".to_owned(), partition);
        let committed = || stored::positions(&setup.data).get(&key).copied().unwrap_or(0);
        while committed() < end {
            run.assert_running();
            assert!(started.elapsed() < DRAIN_MAX, "committed {} of {end}", committed());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn kill_while_receiving(setup: &Setup, kills: u64, bytes_max: u64, drain: impl Fn(&mut Run)) {
    let seed = std::env::var("STAKEOUT_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}, {kills} kills");
    let mut rng = StdRng::seed_from_u64(seed);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    for round in 0..kills {
        let run = setup.start();
        let life = Duration::from_millis(rng.random_range(LIVES_MS));
        let (tally, _) = load(setup, round, &ledger, |tally| {
            // A kill before the first answers would prove nothing.
            let started = Instant::now();
            while tally.requests.load(Ordering::Relaxed) < SENDERS as u64 {
                assert!(started.elapsed() < Duration::from_secs(60), "seed {seed}: nothing is acknowledged");
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(life);
            assert_memory_bounded(&run, bytes_max);
            run.kill();
        });
        let ledger = ledger.lock().unwrap();
        let (requests, waited) = (tally.requests.load(Ordering::Relaxed), tally.waited.load(Ordering::Relaxed));
        println!(
            "killed {life:?} after the first answers: {requests} requests acknowledged, {waited} told to wait, {} events unanswered in all",
            ledger.unknown.len()
        );
        assert!(!ledger.unknown.is_empty(), "seed {seed}: no kill came between a request and its answer");
    }
    // The patient ones send again what they have no answer to.
    let mut run = setup.start();
    load(setup, kills, &ledger, |_| {
        while !ledger.lock().unwrap().repeat.is_empty() {
            run.assert_running();
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    drain(&mut run);
    assert_memory_bounded(&run, bytes_max);
    run.terminate();
    assert_stored(setup, &ledger.lock().unwrap(), seed);
}

#[test]
fn killed_while_receiving_into_the_embedded_log() {
    let setup = Setup::embedded(BOUNDS, SEAL);
    kill_while_receiving(&setup, number("STAKEOUT_RECEIVE_KILLS", 3), RESIDENT_BYTES_MAX, |run| drain(run, DRAIN_MAX));
}

#[test]
fn killed_while_receiving_into_kafka() {
    let broker = Broker::start();
    for topic in ["audit", "falco", "trail"] {
        broker.create_topic(topic, PARTITIONS);
    }
    let kafka = format!(
        "kafka:\n  brokers: {}\n  group: receive\n  instance: receive-1\n  idle_after: 2s\n  topics:\n    - {{topic: audit, source: kubernetes, cluster: prod}}\n    - {{topic: falco, source: falco, cluster: prod}}\n    - {{topic: trail, source: cloudtrail}}\n  properties:\n    session.timeout.ms: 6000\n",
        broker.bootstrap()
    );
    let setup = Setup::new(BOUNDS, &format!("{kafka}{SEAL}"));
    kill_while_receiving(&setup, 2, RESIDENT_KAFKA_BYTES_MAX, |run| drain_kafka(&setup, &broker, run));
}

/// `STAKEOUT_LOAD_SECONDS=60 cargo test --test it full_speed -- --nocapture` prints what the machine sustains.
#[test]
fn full_speed_within_bounds() {
    let seconds = number("STAKEOUT_LOAD_SECONDS", 1);
    let setup = Setup::embedded(BOUNDS, SEAL);
    let mut run = setup.start();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut highest = 0;
    let (tally, took) = load(&setup, 0, &ledger, |_| {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(seconds) {
            run.assert_running();
            highest = highest.max(resident(run.pid()).1);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let draining = Instant::now();
    drain(&mut run, DRAIN_MAX);
    let (peak, all) = (assert_memory_bounded(&run, RESIDENT_BYTES_MAX), took + draining.elapsed());
    run.terminate();

    let (requests, bytes) = (tally.requests.load(Ordering::Relaxed), tally.bytes.load(Ordering::Relaxed));
    let (seconds, events) = (took.as_secs_f64(), requests * BATCH_EVENTS as u64);
    let mut latencies = std::mem::take(&mut *tally.latencies.lock().unwrap());
    latencies.sort();
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!(
        "{SENDERS} senders, {seconds:.1} s: {:.0} requests/s, {:.0} events/s, {:.1} MB/s acknowledged; told to wait {} times; \
         p50 {:?}, p99 {:?}; {:.0} events/s stored until all was ({:.1} s); resident at most {} MiB (peak {} MiB)",
        requests as f64 / seconds,
        events as f64 / seconds,
        bytes as f64 / 1e6 / seconds,
        tally.waited.load(Ordering::Relaxed),
        quantile(0.5),
        quantile(0.99),
        events as f64 / all.as_secs_f64(),
        all.as_secs_f64(),
        highest >> 20,
        peak >> 20,
    );
    assert_stored(&setup, &ledger.lock().unwrap(), 0);
}
