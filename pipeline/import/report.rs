//! What an import says: a line that rewrites itself while it runs, and the sum at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use event::{Counts, format_micros};
use source::{Progress, Remark};

use super::line::Imported;

const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Of many alike, so many are told; the others are counted.
const REASONS_TOLD: usize = 5;
const REMARKS_TOLD: usize = 20;

/// A line on the terminal that rewrites itself; silent elsewhere.
pub struct ProgressLine {
    started: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl ProgressLine {
    pub fn new() -> ProgressLine {
        ProgressLine { started: Instant::now(), shown: None, terminal: std::io::stderr().is_terminal() }
    }

    pub fn show(&mut self, progress: &Progress, counts: &Counts) {
        if !self.terminal || self.shown.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        eprint!("\r{}\x1b[K", progress_line(progress, counts, self.started.elapsed()));
    }

    pub fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn progress_line(progress: &Progress, counts: &Counts, took: Duration) -> String {
    let Progress { bytes_done, bytes_total, files_done, files_total } = *progress;
    let seconds = took.as_secs_f64().max(1e-9);
    let rows = counts.admitted + counts.duplicates;
    let left = (bytes_total - bytes_done) as f64 * seconds / (bytes_done.max(1) as f64);
    format!(
        "{:5.1} %  {:.1} of {:.1} MB, {files_done} of {files_total} files, {rows} events, {:.0} events/s, {} left",
        100.0 * bytes_done as f64 / bytes_total.max(1) as f64,
        bytes_done as f64 / 1e6,
        bytes_total as f64 / 1e6,
        rows as f64 / seconds,
        short(left as u64),
    )
}

/// `1h05m`, `2m03s`, `4s`.
fn short(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

pub struct Report<'a> {
    pub imported: &'a Imported,
    pub skipped: &'a [Remark],
    /// Files that were imported before.
    pub before: usize,
    pub took: Duration,
}

impl Report<'_> {
    pub fn print(&self) {
        let Imported { counts, findings, reasons, span, files, notes, interrupted, .. } = self.imported;
        let Counts { admitted, unparsed, duplicates, conflicts, bytes, .. } = *counts;
        let (megabytes, seconds) = (bytes as f64 / 1e6, self.took.as_secs_f64().max(1e-9));
        eprintln!(
            "imported {admitted} events from {files} files ({megabytes:.1} MB in {seconds:.1} s, {:.1} MB/s, {:.0} events/s)",
            megabytes / seconds,
            (admitted + duplicates) as f64 / seconds,
        );
        if let Some((first, last)) = span {
            eprintln!("  events from {} to {}", format_micros(*first), format_micros(*last));
        }
        eprintln!(
            "  {duplicates} duplicates dropped, {unparsed} unparsed (kept in `unparsed`), {conflicts} uid conflicts (kept)"
        );
        for (reason, count) in most(reasons).take(REASONS_TOLD) {
            eprintln!("    {count} x {reason}");
        }
        match interrupted {
            true => {
                eprintln!("  {findings} findings so far; rules over windows are evaluated when an import is complete")
            }
            false => eprintln!("  {findings} findings; see them with `stakeout alerts`"),
        }
        print_skipped(self.skipped, self.before);
        for note in notes.iter().take(REMARKS_TOLD) {
            eprintln!("  note: {}: {}", note.path.display(), note.what);
        }
        if *interrupted {
            eprintln!("stopped before the end; what was read is stored\nhint: run the same command again to go on");
        }
    }

    /// All that could not be read.
    pub fn unreadable(&self) -> String {
        unreadable(&self.imported.errors, "all others are imported")
    }
}

pub fn print_skipped(skipped: &[Remark], before: usize) {
    if before > 0 {
        eprintln!("  {before} files were imported before and have not changed; --again reads them anyway");
    }
    let mut reasons: BTreeMap<&str, Vec<&Remark>> = BTreeMap::new();
    for remark in skipped {
        reasons.entry(&remark.what).or_default().push(remark);
    }
    for (reason, files) in reasons {
        let more = if files.len() > 1 { format!(" and {} more", files.len() - 1) } else { String::new() };
        eprintln!("  skipped {}: {reason} ({}{more})", files.len(), files[0].path.display());
    }
}

pub fn unreadable(errors: &[Remark], others: &str) -> String {
    let files = errors.iter().map(|error| &error.path).collect::<std::collections::BTreeSet<_>>().len();
    let mut text = format!("{files} files could not be read, or not in full; {others}");
    for error in errors {
        // Infallible: it writes to memory.
        let _ = write!(text, "\n{}: {}", error.path.display(), error.what);
    }
    text
}

fn most(reasons: &BTreeMap<String, u64>) -> impl Iterator<Item = (&String, &u64)> {
    let mut all: Vec<_> = reasons.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    all.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_how_long_it_will_take() {
        let progress = Progress { bytes_done: 25_000_000, bytes_total: 100_000_000, files_done: 3, files_total: 9 };
        let counts = Counts { admitted: 900, duplicates: 100, ..Counts::default() };
        assert_eq!(
            progress_line(&progress, &counts, Duration::from_secs(50)),
            " 25.0 %  25.0 of 100.0 MB, 3 of 9 files, 1000 events, 20 events/s, 2m30s left"
        );
        assert_eq!((short(3), short(3900)), ("3s".to_owned(), "1h05m".to_owned()));
    }

    #[test]
    fn all_unreadable_files_are_named() {
        let error = |path: &str| Remark { path: path.into(), what: "gone".to_owned() };
        let text = unreadable(&[error("a"), error("b"), error("a")], "all others are imported");
        assert_eq!(
            text,
            "2 files could not be read, or not in full; all others are imported\na: gone\nb: gone\na: gone"
        );
    }
}
