//! Measurements on rows made from real CloudTrail events. `cargo test -p stakeout -p store --lib -- --ignored measure
//! --nocapture`; skips if the events are not there.

use std::time::Instant;

use event::ColumnType;

use super::{Row, row, table, unit};
use crate::search::{Query, TimeRange};
use crate::{Store, StoreOptions};

const EVENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/cloudtrail/invictus.ndjson");
const ROWS: usize = 50_000;

/// The real events again and again with fresh ids and times.
fn rows() -> Option<Vec<Row>> {
    let text = std::fs::read_to_string(EVENTS).ok()?;
    let lines: Vec<&str> = text.lines().collect();
    let fresh = |raw: &mut String, key: &str, n: usize| {
        let Some(at) = raw.find(key).map(|at| at + key.len()) else { return };
        let len = raw[at..].find('"').unwrap_or(0);
        let hex = blake3::hash(format!("{key}{n}").as_bytes()).to_hex().to_string();
        let id: String = raw[at..at + len]
            .chars()
            .zip(hex.chars().cycle())
            .map(|(old, new)| if old.is_ascii_alphanumeric() { new } else { old })
            .collect();
        raw.replace_range(at..at + len, &id);
    };
    let make = |n: usize| {
        let mut raw = lines[n % lines.len()].to_owned();
        fresh(&mut raw, "\"eventID\":\"", n);
        fresh(&mut raw, "\"requestID\":\"", n);
        row(1_688_989_356_000_000 + n as i64 * 20_000, n as i64, raw)
    };
    Some((0..ROWS).map(make).collect())
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let Some(rows) = rows() else { return println!("skipped: {EVENTS} is not there") };
    let schema = table("cloudtrail", &[("eventName", ColumnType::String), ("awsRegion", ColumnType::String)]);
    let raw: usize = rows.iter().map(|row| row.raw.len()).sum();
    let megabytes = raw as f64 / 1e6;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), vec![schema.clone()], StoreOptions::default()).unwrap();
    for rows in rows.chunks(1000) {
        store.append(&unit(&schema, rows)).unwrap();
    }
    // One row, by a value of rare words.
    let id = serde_json::from_str::<serde_json::Value>(&rows[ROWS / 2].raw).unwrap()["eventID"].to_string();
    let by_id = format!("eventID:{id}");
    let queries = [
        by_id.as_str(),
        "getobject",
        "eventName:GetObject",
        "userIdentity.arn:*benj*",
        "sourceIPAddress:10.0.0.0/8",
        "\"aws internal\"",
    ];
    let time = |what: &str, store: &Store| {
        for query in queries {
            let (query, start) = (Query::parse(query).unwrap(), Instant::now());
            let count = store.count(&query, TimeRange::default()).unwrap();
            println!("{what}: {} rows in {:.1} ms: {:?}", count.rows, start.elapsed().as_secs_f64() * 1e3, query.expr);
        }
    };
    time("unsealed", &store);
    let (start, before) = (Instant::now(), cpu_seconds());
    store.seal().unwrap();
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - before);
    println!("seal: {megabytes:.1} MB, {seconds:.2} s, {:.1} MB/s on two threads", megabytes / seconds);
    println!("seal: {cpu:.2} s of CPU, {:.1} MB/s per core", megabytes / cpu);
    time("sealed, first", &store);
    time("sealed, again", &store);
    let stats = store.stats().unwrap();
    println!("disk: {:.3} of raw", stats.disk_bytes as f64 / raw as f64);
    for part in ["data.parquet", "dedup.bin", ".term", ".idx", ".pos", ".store", ".fast", ".fieldnorm", "json"] {
        println!("  {part}: {:.4}", bytes_of(dir.path(), part) as f64 / raw as f64);
    }
    drop(store);
    drop(open_again(dir.path(), schema));
}

/// User and system time of this process (clock ticks are 10 ms on Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let times = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn open_again(dir: &std::path::Path, schema: std::sync::Arc<event::TableSchema>) -> Store {
    let start = Instant::now();
    let store = Store::open(dir, vec![schema], StoreOptions::default()).unwrap();
    println!("open: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    store
}

fn bytes_of(dir: &std::path::Path, suffix: &str) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir.join("segments/cloudtrail")).into_iter().flatten().flatten() {
        for folder in [entry.path(), entry.path().join("index")] {
            for file in std::fs::read_dir(folder).unwrap().flatten() {
                if file.file_name().to_string_lossy().ends_with(suffix) {
                    bytes += file.metadata().unwrap().len();
                }
            }
        }
    }
    bytes
}

/// How long a seal takes while segments are being merged, against one in peace; and what the merge itself manages.
#[test]
#[ignore = "a measurement"]
fn measure_seals_beside_a_merge() {
    let Some(rows) = rows() else { return println!("skipped: {EVENTS} is not there") };
    let schema = table("cloudtrail", &[("eventName", ColumnType::String), ("awsRegion", ColumnType::String)]);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), vec![schema.clone()], StoreOptions::default()).unwrap();
    let seal = |rows: &[Row]| {
        store.append(&unit(&schema, rows)).unwrap();
        let start = Instant::now();
        store.seal().unwrap();
        start.elapsed().as_secs_f64() * 1e3
    };
    let (piled, small) = rows.split_at(ROWS * 9 / 10);
    piled.chunks(piled.len() / 16).for_each(|rows| _ = seal(rows));
    let mut small = small.chunks(50);
    let show = |what: &str, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{what}: {} seals of 50 rows, median {median:.1} ms, longest {max:.1} ms", times.len());
    };
    show("in peace", small.by_ref().take(30).map(seal).collect());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let merge = scope.spawn(|| {
            let start = Instant::now();
            let policy = crate::Compaction { inputs_min: 16, ..Default::default() };
            let merged = store.compact(&policy, 0, &|| false).unwrap().unwrap();
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            (merged, start.elapsed())
        });
        let running = || !done.load(std::sync::atomic::Ordering::SeqCst);
        show("beside a merge", small.by_ref().take_while(|_| running()).map(seal).collect());
        let (merged, took) = merge.join().unwrap();
        println!(
            "merge: {} segments, {} rows, {:.1} -> {:.1} MB on disk in {:.2} s",
            merged.inputs,
            merged.rows,
            merged.bytes_before as f64 / 1e6,
            merged.bytes_after as f64 / 1e6,
            took.as_secs_f64()
        );
    });
}

/// Time to ready with many segments.
#[test]
#[ignore = "a measurement"]
fn measure_opening_a_thousand_segments() {
    let schema = table("cloudtrail", &[("eventName", ColumnType::String)]);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), vec![schema.clone()], StoreOptions::default()).unwrap();
    for n in 0..1000 {
        store.append(&unit(&schema, &[row(n, n, format!("{{\"eventName\":\"{n}\"}}"))])).unwrap();
        store.seal().unwrap();
    }
    drop(store);
    let store = open_again(dir.path(), schema.clone());
    let start = Instant::now();
    let verified = crate::verify(dir.path(), std::slice::from_ref(&schema), &mut |_, _| {}).unwrap();
    println!("verify: {} segments in {:.1} ms", verified.segments, start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let mut merges = 0;
    while store.compact(&crate::Compaction::default(), 0, &|| false).unwrap().is_some() {
        merges += 1;
    }
    store.sweep().unwrap();
    let stats = store.stats().unwrap();
    println!("{merges} merges in {:.2} s leave {} segments", start.elapsed().as_secs_f64(), stats.segments);
    drop(store);
    drop(open_again(dir.path(), schema));
}
