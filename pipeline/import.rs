//! `stakeout import`: files as a bounded stream. Everything is admitted, stored and matched as live events are, with
//! a watermark of its own; when the files end, so does event time, and every window is final.
//!
//! An import that was interrupted, however that happened, goes on when it is started again: files that are stored to
//! their end are skipped, rows of the others are duplicates as far as they are stored. Windows are evaluated at the end
//! of an import that comes to its end, over all imported rows.

mod ledger;
mod line;
mod report;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use event::Origin;
use normalize::{Normalizer, Schemas};
use source::{FileStamp, Import, Survey};
use store::Store;

use crate::cli;
use crate::config::Config;
use crate::keeper;
use crate::rooms::{Detection, Door, Knowledge, load_schemas, open_store, read_store};
use crate::shutdown::Shutdown;
use ledger::{Ledger, Terms};
use line::Line;
use report::{ProgressLine, Report};

/// False: stopped before the end. An error when files could not be read; all others are imported then.
pub fn run(args: &cli::Import, mut config: Config, stopping: &Shutdown) -> Result<bool> {
    if args.source.needs_cluster() && args.cluster.is_none() {
        bail!("{} events do not say which cluster they come from\nhint: add --cluster NAME", args.source);
    }
    let started = Instant::now();
    let survey = Survey::of(&args.paths, args.source)?;
    if args.dry_run {
        return dry_run(args, &config, survey);
    }
    config.alerts.page_imports = args.page;
    let knowledge = Knowledge::load(&config)?;
    let store = open_store(&config, &knowledge.schemas, false)?;
    let ledger = Ledger::new(&config.data_dir, terms(args, &knowledge.schemas));
    let (files, before) = to_read(args, &ledger, &store, survey.files)?;

    let jobs = args.jobs.map_or_else(cores, usize::from);
    let normalizers = (0..jobs).map(|_| Normalizer::new(&knowledge.schemas)).collect();
    let door = Door::new(&config, &knowledge.schemas, store.watermarks()?);
    let mut detection = Detection::open(&config, knowledge, store.clone())?;
    let feed = Import::start(files, args.source, args.cluster.as_deref(), jobs)?;
    let mut shown = ProgressLine::new();
    let line = Line {
        door,
        normalizers,
        detection: &mut detection,
        store: &store,
        seal_bytes: config.seal_bytes,
        ledger: &ledger,
        stopping,
    };
    let mut imported = line.run(feed, |progress, counts| shown.show(progress, counts))?;
    shown.clear();
    if !imported.interrupted {
        imported.findings += detection.finish(Origin::Import)?;
        keeper::tidy(&store, &config.upkeep);
    }
    imported.errors.extend(survey.unreadable);
    let report = Report { imported: &imported, skipped: &survey.skipped, before, took: started.elapsed() };
    report.print();
    if !imported.errors.is_empty() {
        bail!(report.unreadable());
    }
    Ok(!imported.interrupted)
}

fn terms(args: &cli::Import, schemas: &Schemas) -> Terms {
    Terms { source: args.source, cluster: args.cluster.clone(), schemas: schemas.hash() }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The files without those that were imported before, and how many those are.
fn to_read(
    args: &cli::Import,
    ledger: &Ledger,
    store: &Store,
    files: Vec<FileStamp>,
) -> Result<(Vec<FileStamp>, usize)> {
    if args.again {
        return Ok((files, 0));
    }
    let imported = ledger.imported(&files, store)?;
    let all = files.len();
    let files: Vec<FileStamp> =
        files.into_iter().zip(imported).filter(|(_, imported)| !imported).map(|f| f.0).collect();
    let before = all - files.len();
    Ok((files, before))
}

/// The files on stdout, one a line; everything else is talk.
fn dry_run(args: &cli::Import, config: &Config, survey: Survey) -> Result<bool> {
    let Survey { mut files, skipped, unreadable } = survey;
    let mut before = 0;
    if is_data_directory(&config.data_dir) {
        let schemas = load_schemas(config)?;
        let store = Arc::new(read_store(&config.data_dir, &schemas)?);
        let ledger = Ledger::new(&config.data_dir, terms(args, &schemas));
        (files, before) = to_read(args, &ledger, &store, files)?;
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for file in &files {
        writeln!(out, "{}", file.path.display())?;
    }
    out.flush()?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    eprintln!("would read {} files, {:.1} MB", files.len(), bytes as f64 / 1e6);
    report::print_skipped(&skipped, before);
    if !unreadable.is_empty() {
        bail!(report::unreadable(&unreadable, "nothing else was tried"));
    }
    Ok(true)
}

fn is_data_directory(dir: &Path) -> bool {
    dir.join("manifest.db").is_file()
}
