//! What measuring takes: clocks, memory, a folder that goes away, and the stream that everything is measured on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use event::{Batch, Message, Origin};
use normalize::{Normalizer, Schemas};
use synthetic::{Event, Generator, Options};

pub const SECOND: i64 = 1_000_000;
/// Events normalized at once.
pub const BATCH: usize = 8_192;

/// Best of a few rounds: the least disturbed one.
pub fn best(rounds: usize, mut work: impl FnMut()) -> Duration {
    let round = |_| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    (0..rounds.max(1)).map(round).min().expect("there is a round")
}

/// User and system time of all threads of this process (clock ticks are 10 ms on Linux).
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Bytes of memory that the process has at most had since [`forget_peak`], or ever where the kernel cannot forget.
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

pub fn forget_peak() {
    // 5: reset the peak resident set size (proc(5)).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The value below which that share of the sorted values lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n => sorted[((n as f64 * share).ceil() as usize).clamp(1, n) - 1],
    }
}

/// Median of so many runs, in ms.
pub fn median_ms(runs: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..runs.max(1) {
        let started = Instant::now();
        work()?;
        took.push(started.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok(quantile(&took, 0.5))
}

pub fn mb(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// A folder for one run, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Result<Scratch> {
        let dir = std::env::temp_dir().join(format!("stakeout-bench-{}-{name}", std::process::id()));
        let made = std::fs::create_dir_all(&dir);
        made.with_context(|| format!("cannot create {}\nhint: TMPDIR names another place", dir.display()))?;
        Ok(Scratch(dir))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The steady synthetic stream: a thousand events a second of event time, an attack every ten of those seconds.
pub fn steady(seed: u64, events: usize) -> Vec<Event> {
    let start = 1_760_000_000 * SECOND;
    Generator::new(Options { seed, start, gap: 1_000, attack_every: 10_000, ..Options::default() })
        .take(events)
        .collect()
}

pub fn messages(events: &[Event]) -> Vec<Message> {
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

/// By table.
pub fn normalized(messages: &[Message]) -> Vec<Batch> {
    let mut normalizer = Normalizer::new(&Schemas::builtin());
    let mut batches = Vec::new();
    for chunk in messages.chunks(BATCH) {
        chunk.iter().for_each(|m| normalizer.push(m));
        batches.extend(normalizer.finish().batches);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)), (50.0, 99.0, 100.0));
        assert_eq!((quantile(&[7.0], 0.01), quantile(&[7.0], 0.99), quantile(&[], 0.5)), (7.0, 7.0, 0.0));
    }

    #[test]
    fn this_process_has_memory_and_a_clock() {
        assert!(peak_memory() > 1 << 20);
        assert!(cpu_time() > Duration::ZERO || best(1, || {}) < Duration::from_secs(1));
    }
}
