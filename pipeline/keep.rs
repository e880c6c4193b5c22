//! `stakeout verify`, `backup`, `restore` and `hold`: looking after a data directory from outside. All of them work
//! beside a running process; only what changes the store itself needs it stopped.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use event::{Micros, format_micros};
use store::{Hold, Holds, Problem, Verified};

use crate::cli::{self, HoldCommand};
use crate::config::Config;
use crate::rooms::{alerts_db, load_schemas, stored, wall_clock};

const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// More are counted, not listed: a lost disk would fill the screen.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// False if something is damaged.
pub fn verify(args: &cli::Verify, config: &Config) -> Result<bool> {
    require_data_dir(config)?;
    let report = report(config, &config.data_dir)?;
    let damaged: Vec<(String, String)> = report.problems.iter().filter_map(|problem| problem.segment.clone()).collect();
    if args.quarantine && !damaged.is_empty() {
        let mut damaged = damaged;
        damaged.dedup();
        let aside = store::quarantine(&config.data_dir, &damaged)?;
        println!("set aside {} segments in {}", damaged.len(), aside.display());
    }
    Ok(report.problems.is_empty())
}

/// Verifies with progress and prints one screen.
fn report(config: &Config, dir: &Path) -> Result<Verified> {
    let schemas = load_schemas(config)?;
    let started = Instant::now();
    let mut progress = Progress::new();
    let mut verified =
        store::verify(dir, &stored(&schemas), &mut |done, total| progress.show("verified", done, total))?;
    progress.clear();
    let alerts = dir.join(alerts_db(config).file_name().unwrap_or_default());
    if alerts.exists() {
        for what in store::check_database(&alerts)? {
            verified.problems.push(Problem { segment: None, what: format!("alerts.db: {what}") });
        }
    }
    let mut out = stdout().lock();
    out.write_all(summary(dir, &verified, started.elapsed()).as_bytes())?;
    out.flush()?;
    Ok(verified)
}

fn summary(dir: &Path, verified: &Verified, took: Duration) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!("data directory  {}", dir.display()));
    if let Some(pid) = verified.owner {
        line(format!("in use by       process {pid}: what it is writing was not judged"));
    }
    line(format!("last commit     {}", verified.sequence));
    for (table, (segments, rows)) in &verified.tables {
        line(format!("{table:<15} {rows} rows in {segments} segments"));
    }
    line(format!(
        "together        {} rows in {} segments, {} files, {} on disk for {} of events, offsets of {} partitions",
        verified.rows,
        verified.segments,
        verified.files,
        size(verified.disk_bytes),
        size(verified.raw_bytes),
        verified.partitions
    ));
    let rate = verified.disk_bytes as f64 / 1e6 / took.as_secs_f64().max(1e-9);
    line(format!("took            {:.1} s ({rate:.0} MB/s)", took.as_secs_f64()));
    if verified.problems.is_empty() {
        line("no problem: every file has the bytes that were written, every row is there once".to_owned());
        return text;
    }
    line(format!("{} problems:", verified.problems.len()));
    for problem in verified.problems.iter().take(PROBLEMS_SHOWN_MAX) {
        match &problem.segment {
            Some((table, ulid)) => line(format!("  {table}/{ulid}: {}", problem.what)),
            None => line(format!("  {}", problem.what)),
        }
    }
    let more = verified.problems.len().saturating_sub(PROBLEMS_SHOWN_MAX);
    if more > 0 {
        line(format!("  and {more} more"));
    }
    line("hint: restore from a backup, or set damaged segments aside with `stakeout verify --quarantine`".to_owned());
    text
}

pub fn backup(args: &cli::Backup, config: &Config) -> Result<()> {
    require_data_dir(config)?;
    let (started, mut progress) = (Instant::now(), Progress::new());
    let show = &mut |done, total| progress.show("copied", done, total);
    let made = store::backup(&config.data_dir, &args.target, args.link, wall_clock(), show)
        .context("the backup is not whole")?;
    progress.clear();
    eprintln!(
        "backed up commit {} ({} segments, {} files, {}) to {} in {:.1} s",
        made.sequence,
        made.segments,
        made.files,
        size(made.bytes),
        args.target.display(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// False if what was restored is damaged.
pub fn restore(args: &cli::Restore, config: &Config) -> Result<bool> {
    let (dir, mut progress) = (&config.data_dir, Progress::new());
    let made = store::restore(&args.backup, dir, &mut |done, total| progress.show("copied", done, total))?;
    progress.clear();
    eprintln!("restored the backup of {} to {}", format_micros(made.begun), dir.display());
    Ok(report(config, dir)?.problems.is_empty())
}

/// False if there was nothing to list.
pub fn hold(args: &cli::HoldArgs, config: &Config) -> Result<bool> {
    require_data_dir(config)?;
    let mut holds = Holds::open(&config.data_dir)?;
    match &args.command {
        HoldCommand::Add { from, to, reason, author } => {
            let id = holds.add(*from, *to, reason, author, wall_clock())?;
            eprintln!("hold {id}: nothing from {} to {} expires", format_micros(*from), format_micros(*to));
            Ok(true)
        }
        HoldCommand::Release { id, author } => {
            holds.release(*id, author, wall_clock())?;
            eprintln!("hold {id} is released");
            Ok(true)
        }
        HoldCommand::List => {
            let all = holds.list()?;
            let mut out = stdout().lock();
            all.iter().try_for_each(|hold| writeln!(out, "{}", told(hold)))?;
            Ok(!all.is_empty())
        }
    }
}

fn told(hold: &Hold) -> String {
    let mut text = format!(
        "{}  {} to {}  {} ({}, {})",
        hold.id,
        format_micros(hold.first),
        format_micros(hold.last),
        hold.reason,
        hold.author,
        format_micros(hold.created)
    );
    if let Some((when, by)) = &hold.released {
        let _ = write!(text, ", released {} by {by}", format_micros(*when as Micros));
    }
    text
}

fn require_data_dir(config: &Config) -> Result<()> {
    let dir = &config.data_dir;
    if !dir.join("manifest.db").exists() {
        bail!(
            "{} is no data directory of stakeout\nhint: name one with --data-dir; if its manifest.db is lost, restore it from a backup",
            dir.display()
        );
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
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

    fn show(&mut self, what: &str, done: u64, total: u64) {
        if !self.terminal || self.shown.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        eprint!("\r{what} {:5.1} % ", 100.0 * done as f64 / total.max(1) as f64);
    }

    fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!([size(7), size(1536), size(5 << 20), size(3 << 30)], ["7 B", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }

    #[test]
    fn a_summary_fits_on_a_screen_whatever_was_found() {
        let problem = Problem { segment: Some(("falco".into(), "01ABC".into())), what: "is gone".into() };
        let verified = Verified { problems: vec![problem; 500], owner: Some(7), ..Verified::default() };
        let text = summary(Path::new("data"), &verified, Duration::from_secs(1));
        assert!(text.lines().count() < 40, "{text}");
        assert!(
            text.contains("500 problems:\n  falco/01ABC: is gone\n") && text.contains("  and 480 more\nhint:"),
            "{text}"
        );
        let whole = summary(Path::new("data"), &Verified::default(), Duration::from_secs(1));
        assert!(whole.ends_with("no problem: every file has the bytes that were written, every row is there once\n"));
    }
}
