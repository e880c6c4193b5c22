//! `stakeout import`: files as a bounded stream. Everything is admitted, stored and matched as live events are, with
//! a watermark of its own; when the files end, so does event time, and every window is final.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use event::{Counts, Origin};
use source::{Feed, Import};

use crate::cli;
use crate::config::Config;
use crate::keeper;
use crate::rooms::{Detection, Door, Knowledge, open_store};

const PROGRESS_EVERY: Duration = Duration::from_millis(500);

struct Imported {
    counts: Counts,
    findings: usize,
}

pub fn run(args: &cli::Import, mut config: Config) -> Result<()> {
    if args.source.needs_cluster() && args.cluster.is_none() {
        bail!("{} events do not say which cluster they come from\nhint: add --cluster NAME", args.source);
    }
    config.alerts.page_imports = args.page;
    let mut feed = Import::open(&args.paths, args.source, args.cluster.as_deref())?;
    let knowledge = Knowledge::load(&config)?;
    let store = open_store(&config, &knowledge.schemas, false)?;
    let mut door = Door::new(&config, &knowledge.schemas, store.watermarks()?);
    let mut detection = Detection::open(&config, knowledge, store.clone())?;

    let started = Instant::now();
    let mut progress = Progress::new();
    let mut imported = Imported { counts: Counts::default(), findings: 0 };
    while !feed.finished() {
        let admitted = Arc::new(door.admit(feed.poll(Duration::ZERO)?, &*store)?);
        imported.counts.add(&admitted.counts);
        imported.findings += detection.on_admitted(&admitted)?;
        store.append(&admitted)?;
        if store.seal_due(Instant::now()) {
            store.seal()?;
        }
        progress.show(&feed, &imported.counts);
    }
    store.seal()?;
    imported.findings += detection.finish(Origin::Import)?;
    keeper::tidy(&store, &config.upkeep)?;
    progress.clear();
    report(&imported, &feed, started.elapsed());
    Ok(())
}

fn report(imported: &Imported, feed: &Import, took: Duration) {
    let Counts { admitted, unparsed, duplicates, conflicts, bytes, .. } = imported.counts;
    let files = feed.progress().files_total;
    let (megabytes, seconds) = (bytes as f64 / 1e6, took.as_secs_f64());
    eprintln!(
        "imported {admitted} events from {files} files ({megabytes:.1} MB in {seconds:.1} s, {:.1} MB/s)",
        megabytes / seconds.max(1e-9)
    );
    eprintln!(
        "  {duplicates} duplicates dropped, {unparsed} unparsed (kept in `unparsed`), {conflicts} uid conflicts (kept)"
    );
    eprintln!("  {} findings; see them with `stakeout alerts`", imported.findings);
}

/// A line on the terminal that rewrites itself; silent elsewhere.
struct Progress {
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { shown: None, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, feed: &Import, counts: &Counts) {
        if !self.terminal || self.shown.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        let p = feed.progress();
        let percent = 100.0 * p.bytes_done as f64 / p.bytes_total.max(1) as f64;
        eprint!("\r{percent:5.1} %  {} of {} files, {} events ", p.files_done, p.files_total, counts.admitted);
    }

    fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
