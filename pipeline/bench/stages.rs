//! From bytes to committed segments: normalizing against its floor, and the whole path stage by stage. Rates are per core, by
//! CPU time of the process, since the store writes with several threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use event::{Message, Origin, Polled, Source};
use normalize::{Normalizer, Schemas};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::de::IgnoredAny;
use store::{Compaction, Store};
use synthetic::Event;

use super::figure::Figures;
use super::measure::{BATCH, Scratch, best, cpu_time, mb, messages, normalized};
use crate::config::Config;
use crate::rooms::{Detection, Door, Knowledge, open_store};

/// One pass over the bytes that keeps nothing: what no reader of JSON undercuts.
pub struct Skip {
    pub mb_per_second: f64,
    pub events_per_second: f64,
}

pub fn skip(rounds: usize, events: &[Event]) -> Skip {
    let took = best(rounds, || {
        for event in events {
            let _ = std::hint::black_box(serde_json::from_slice::<IgnoredAny>(&event.bytes));
        }
    });
    let seconds = took.as_secs_f64().max(1e-9);
    Skip { mb_per_second: mb(bytes(events)) / seconds, events_per_second: events.len() as f64 / seconds }
}

fn bytes(events: &[Event]) -> usize {
    events.iter().map(|e| e.bytes.len()).sum()
}

/// A public CloudTrail set, ten times over, where it lies beside the sources.
pub fn real_cloudtrail() -> Option<Vec<Event>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/cloudtrail/invictus.ndjson");
    let bytes = std::fs::read(path).ok()?;
    let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let event = |line: &[u8]| Event { time: 0, source: Source::CloudTrail, cluster: None, bytes: line.to_vec() };
    let once: Vec<Event> = lines.map(event).collect();
    Some(std::iter::repeat_n(once, 10).flatten().collect())
}

pub fn normalize(name: &str, rounds: usize, events: &[Event], figures: &mut Figures) {
    let floor = skip(rounds, events);
    let messages = messages(events);
    let mut normalizer = Normalizer::new(&Schemas::builtin());
    let took = best(rounds, || {
        for chunk in messages.chunks(BATCH) {
            chunk.iter().for_each(|m| normalizer.push(m));
            std::hint::black_box(normalizer.finish());
        }
    });
    figures.add_against(name, mb(bytes(events)) / took.as_secs_f64().max(1e-9), floor.mb_per_second);
}

/// What the whole path leaves behind, to hunt in.
pub struct Stored {
    pub store: Arc<Store>,
    pub door: Door,
    /// Bytes of the events.
    raw: usize,
    _dir: Scratch,
}

/// Events in, committed segments and findings out.
pub fn whole_path(stream: &[Event], skip: &Skip, figures: &mut Figures) -> Result<Stored> {
    let dir = Scratch::new("path")?;
    let config = Config { data_dir: dir.path().to_owned(), listen: None, ..Config::default() };
    let knowledge = Knowledge::load(&config)?;
    let store = open_store(&config, &knowledge.schemas, false)?;
    let mut door = Door::new(&config, &knowledge.schemas, store.watermarks()?);
    let mut detection = Detection::open(&config, knowledge, store.clone())?;
    let mut stages = Stages::default();
    let messages = messages(stream);
    // At least two segments a table, so that there is something to merge.
    let (first, second) = messages.split_at(messages.len() / 2);
    for half in [first, second] {
        for chunk in half.chunks(BATCH) {
            let polled = Polled { messages: chunk.to_vec(), ..Polled::default() };
            let admitted = stages.time("stage-normalize", || door.admit(polled, &*store))?;
            stages.time("stage-rules", || detection.on_admitted(&admitted))?;
            stages.time("stage-append", || store.append(&admitted))?;
            if store.seal_due(Instant::now()) {
                seal(&mut stages, &store, &mut detection)?;
            }
        }
        seal(&mut stages, &store, &mut detection)?;
    }
    stages.time("stage-windows", || detection.finish(Origin::Live))?;

    let raw = bytes(stream);
    let parquet = parquet_floor(&messages)?;
    for (stage, took) in &stages.0 {
        let floor = if *stage == "stage-seal" { parquet } else { skip.mb_per_second };
        // Less than a tick of the clock: as fast as can be told.
        figures.add_against(stage, mb(raw) / took.as_secs_f64().max(0.01), floor);
    }
    figures.add_against("whole-path", mb(raw) / stages.total().as_secs_f64().max(0.01), skip.mb_per_second);
    figures.add("disk-sealed", store.stats()?.disk_bytes as f64 / raw as f64);
    Ok(Stored { store, door, raw, _dir: dir })
}

impl Stored {
    /// Merges as it is done once segments are a day old.
    pub fn merge(&self, figures: &mut Figures) -> Result<()> {
        let policy = Compaction { inputs_min: 2, ..Compaction::default() };
        let (before, mut merged) = (cpu_time(), 0);
        while let Some(compacted) = self.store.compact(&policy, 0, &|| false)? {
            merged += compacted.raw_bytes;
        }
        let took = cpu_time().saturating_sub(before);
        figures.add("merge", mb(merged as usize) / took.as_secs_f64().max(0.01));
        figures.add("disk", self.store.stats()?.disk_bytes as f64 / self.raw as f64);
        Ok(())
    }
}

fn seal(stages: &mut Stages, store: &Store, detection: &mut Detection) -> Result<()> {
    if let Some(commit) = stages.time("stage-seal", || store.seal())? {
        stages.time("stage-windows", || {
            let mut left = detection.on_commit(&commit)?;
            while left {
                left = detection.go_on()?;
            }
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

/// CPU time by stage.
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
}

/// The same rows through Parquet alone: MB of raw events a second.
fn parquet_floor(messages: &[Message]) -> Result<f64> {
    let level = ZstdLevel::try_new(1).context("zstd has a level 1")?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let batches = normalized(messages);
    let before = cpu_time();
    for batch in &batches {
        let mut written = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut written, batch.rows.schema(), Some(properties.clone()))?;
        writer.write(&batch.rows)?;
        writer.close()?;
        std::hint::black_box(written);
    }
    let took = cpu_time().saturating_sub(before);
    let raw: usize = messages.iter().map(|m| m.bytes.len()).sum();
    Ok(mb(raw) / took.as_secs_f64().max(0.01))
}
