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
    let queries = [
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
    let start = Instant::now();
    store.seal().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("seal: {megabytes:.1} MB, {seconds:.2} s, {:.1} MB/s on two threads", megabytes / seconds);
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
