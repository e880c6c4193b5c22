//! `cargo bench --profile dev`: where the time goes, as ratios against floors measured in the same run. All on one thread but for
//! the store, so rates are given per core: by CPU time of the process, not by the wall clock. The profile is the one
//! that demo and tests are built with, so that nothing is compiled again.
//!
//! `cargo bench --profile dev -- EVENTS` sets the size (default 100,000 events of the steady synthetic stream).

#[path = "rules.rs"]
mod rules;
#[path = "windows.rs"]
mod windows;

use std::time::{Duration, Instant};

use event::{Batch, Message, Origin, Polled, Source};
use normalize::{Normalizer, Schemas};
use serde::de::IgnoredAny;
use stakeout::config::Config;
use stakeout::rooms::{Detection, Door, Knowledge, open_store};
use synthetic::{Event, Generator, Options};

const SECOND: i64 = 1_000_000;
const BATCH: usize = 8_192;
const ROUNDS: usize = 3;

fn main() -> anyhow::Result<()> {
    let events = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(100_000);
    let stream = steady(events);
    let bytes: usize = stream.iter().map(|e| e.bytes.len()).sum();
    println!(
        "steady stream: {} events, {:.1} MB, mean {} bytes (seed 1)",
        stream.len(),
        mb(bytes),
        bytes / stream.len()
    );
    println!();
    normalize_against_the_floor("synthetic", &stream);
    if let Some(real) = real_cloudtrail() {
        normalize_against_the_floor("real CloudTrail", &real);
    }
    println!();
    rules::many_rules(&normalized(&stream))?;
    println!();
    windows::windows(&messages(&stream))?;
    println!();
    whole_path(&stream, bytes)
}

fn steady(events: usize) -> Vec<Event> {
    let options = Options { start: 1_760_000_000 * SECOND, gap: 1_000, attack_every: 10_000, ..Options::default() };
    Generator::new(options).take(events).collect()
}

fn real_cloudtrail() -> Option<Vec<Event>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/cloudtrail/invictus.ndjson");
    let bytes = std::fs::read(path).ok()?;
    let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let event = |line: &[u8]| Event { time: 0, source: Source::CloudTrail, cluster: None, bytes: line.to_vec() };
    let once: Vec<Event> = lines.map(event).collect();
    Some(std::iter::repeat_n(once, 10).flatten().collect())
}

fn messages(events: &[Event]) -> Vec<Message> {
    let message = |(n, e): (usize, &Event)| Message {
        source: e.source,
        cluster: e.cluster.map(Into::into),
        origin: Origin::Live,
        topic: e.source.name().into(),
        partition: 0,
        offset: n as i64,
        file_sha256: None,
        received: e.time,
        bytes: e.bytes.clone(),
    };
    events.iter().enumerate().map(message).collect()
}

/// Batches of 8,192 events, by table.
fn normalized(events: &[Event]) -> Vec<Batch> {
    let mut normalizer = Normalizer::new(&Schemas::builtin());
    let mut batches = Vec::new();
    for chunk in messages(events).chunks(BATCH) {
        chunk.iter().for_each(|m| normalizer.push(m));
        batches.extend(normalizer.finish().batches);
    }
    batches
}

/// Best of a few rounds: the least disturbed one.
fn best(mut work: impl FnMut()) -> Duration {
    let round = |_| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    (0..ROUNDS).map(round).min().expect("there is a round")
}

fn normalize_against_the_floor(name: &str, events: &[Event]) {
    let bytes: usize = events.iter().map(|e| e.bytes.len()).sum();
    let floor = best(|| {
        for event in events {
            serde_json::from_slice::<IgnoredAny>(&event.bytes).expect("events are JSON");
        }
    });
    let messages = messages(events);
    let mut normalizer = Normalizer::new(&Schemas::builtin());
    let ours = best(|| {
        for chunk in messages.chunks(BATCH) {
            chunk.iter().for_each(|m| normalizer.push(m));
            std::hint::black_box(normalizer.finish());
        }
    });
    let rate = |d: Duration| mb(bytes) / d.as_secs_f64();
    println!(
        "normalize, {name:<16} {:>6.0} MB/s   floor (serde_json skips everything) {:>6.0} MB/s   ratio {:.2} (goal 0.5)",
        rate(ours),
        rate(floor),
        floor.as_secs_f64() / ours.as_secs_f64(),
    );
}

/// Events in, committed segments and findings out, with the share of each stage.
fn whole_path(stream: &[Event], bytes: usize) -> anyhow::Result<()> {
    let dir = tempdir()?;
    let config = Config { data_dir: dir.clone(), listen: None, ..Config::default() };
    let knowledge = Knowledge::load(&config)?;
    let rules = knowledge.rules.rules.len();
    let store = open_store(&config, &knowledge.schemas, false)?;
    let mut door = Door::new(&config, &knowledge.schemas, store.watermarks()?);
    let mut detection = Detection::open(&config, knowledge, store.clone())?;
    let mut stages = Stages::default();
    let messages = messages(stream);
    let mut findings = 0;
    for chunk in messages.chunks(BATCH) {
        let polled = Polled { messages: chunk.to_vec(), ..Polled::default() };
        let admitted = stages.time("normalize + admit", || door.admit(polled, &*store))?;
        findings += stages.time("detect, single-event", || detection.on_admitted(&admitted))?;
        stages.time("append", || store.append(&admitted))?;
        if store.seal_due(Instant::now()) {
            stages.time("seal (Parquet + index)", || store.seal())?;
        }
    }
    stages.time("seal (Parquet + index)", || store.seal())?;
    findings += stages.time("detect, windows", || detection.finish(Origin::Live))?;

    let cpu = stages.total();
    let disk = disk_bytes(&dir.join("segments"))?;
    println!("whole path: {rules} rules, {findings} findings");
    stages.print(bytes);
    println!(
        "  {:<24} {:>7.2} s CPU          {:>7.1} MB/s per core (goal 20)",
        "total",
        cpu.as_secs_f64(),
        mb(bytes) / cpu.as_secs_f64()
    );
    println!("  {:<24} {:>7.1} MB  {:.3} of raw (goal 0.25)", "on disk", mb(disk), disk as f64 / bytes as f64);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

#[derive(Default)]
struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    fn time<T>(&mut self, stage: &'static str, work: impl FnOnce() -> T) -> T {
        let before = cpu_time();
        let result = work();
        let took = cpu_time().saturating_sub(before);
        match self.0.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, total)) => *total += took,
            None => self.0.push((stage, took)),
        }
        result
    }

    fn total(&self) -> Duration {
        self.0.iter().map(|(_, d)| *d).sum()
    }

    fn print(&self, bytes: usize) {
        for (stage, took) in &self.0 {
            let share = 100.0 * took.as_secs_f64() / self.total().as_secs_f64();
            println!(
                "  {stage:<24} {:>7.2} s CPU {share:>5.1} %  {:>7.1} MB/s",
                took.as_secs_f64(),
                mb(bytes) / took.as_secs_f64().max(1e-9)
            );
        }
    }
}

/// User and system time of all threads of this process (clock ticks are 10 ms on Linux).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn tempdir() -> anyhow::Result<std::path::PathBuf> {
    let dir = std::env::temp_dir().join(format!("stakeout-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn disk_bytes(dir: &std::path::Path) -> anyhow::Result<usize> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        total +=
            if entry.file_type()?.is_dir() { disk_bytes(&entry.path())? } else { entry.metadata()?.len() as usize };
    }
    Ok(total)
}

fn mb(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
