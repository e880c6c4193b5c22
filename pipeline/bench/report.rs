//! A run as it is written to a file and printed: the figures, and the machine and build they are of.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use event::format_micros;
use serde::{Deserialize, Serialize};

use super::figure::{Figure, Goal};
use crate::rooms::wall_clock;

/// Raised when what a file says changes its meaning.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    /// RFC 3339, when the run ended.
    pub date: String,
    pub version: String,
    /// Of the sources the binary was built from, where it runs beside them.
    pub commit: Option<String>,
    pub profile: String,
    pub machine: Machine,
    pub quick: bool,
    pub seed: u64,
    pub events: usize,
    pub figures: Vec<Figure>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cores: usize,
    pub cpu: String,
    pub memory_mib: u64,
}

impl Report {
    pub fn new(quick: bool, seed: u64, events: usize, figures: Vec<Figure>) -> Report {
        Report {
            format: FORMAT,
            date: format_micros(wall_clock()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(Path::new(env!("CARGO_MANIFEST_DIR"))),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
            machine: Machine::here(),
            quick,
            seed,
            events,
            figures,
        }
    }

    pub fn read(path: &Path) -> Result<Report> {
        let name = path.display();
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
        let hint = "hint: write one with `stakeout bench --json FILE`";
        let report: Report = serde_json::from_slice(&bytes)
            .with_context(|| format!("{name} is no report of `stakeout bench`\n{hint}"))?;
        if report.format != FORMAT {
            bail!("{name} has format {}, this binary reads {FORMAT}\n{hint} again", report.format);
        }
        Ok(report)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Where and of what.
    pub fn origin(&self) -> String {
        format!(
            "{} {}{}, {} profile; {} cores, {}, {} MiB; {} events, seed {}{}",
            self.date,
            self.version,
            self.commit.as_ref().map_or(String::new(), |c| format!(" ({})", c.get(..12).unwrap_or(c))),
            self.profile,
            self.machine.cores,
            self.machine.cpu,
            self.machine.memory_mib,
            self.events,
            self.seed,
            if self.quick { ", quick" } else { "" },
        )
    }

    pub fn table(&self) -> String {
        let mut table = format!("{}\n\n", self.origin());
        let wide = self.figures.iter().map(|f| f.what.len()).max().unwrap_or(0);
        let _ = writeln!(
            table,
            "{:<wide$}  {:>12}  {:<19}  {:>12}  {:>7}  goal",
            "what", "value", "unit", "floor", "ratio"
        );
        for f in &self.figures {
            let floor = f.floor.as_ref().map_or("-".to_owned(), |floor| number(floor.value));
            let ratio = f.ratio.map_or("-".to_owned(), number);
            let _ = writeln!(
                table,
                "{:<wide$}  {:>12}  {:<19}  {floor:>12}  {ratio:>7}  {}",
                f.what,
                number(f.value),
                f.unit,
                goal(f)
            );
        }
        table.push_str("\nA ratio is to the floor of its line, above 1 where we do better:\n");
        let mut floors: Vec<(&str, Vec<&str>)> = Vec::new();
        for f in &self.figures {
            let Some(floor) = &f.floor else { continue };
            match floors.iter_mut().find(|(what, _)| *what == floor.what) {
                Some((_, names)) => names.push(&f.name),
                None => floors.push((&floor.what, vec![&f.name])),
            }
        }
        for (what, names) in floors {
            let _ = writeln!(table, "  {what}: {}", names.join(", "));
        }
        table
    }
}

fn goal(f: &Figure) -> String {
    let goal = match f.goal {
        None => return String::new(),
        Some(Goal::Value(goal)) => number(goal),
        Some(Goal::Ratio(goal)) => format!("ratio {}", number(goal)),
    };
    let reached = match f.reached {
        Some(true) => "reached",
        Some(false) => "not reached",
        None => "not measured",
    };
    format!("{goal}, {reached}")
}

/// Three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => thousands(value.round() as i64),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        v if v >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

impl Machine {
    fn here() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
        };
        let kib = after(&read("/proc/meminfo"), "MemTotal").and_then(|t| t.trim_end_matches(" kB").parse::<u64>().ok());
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_mib: kib.unwrap_or(0) / 1024,
        }
    }
}

/// Of the folder's git checkout, read without git: `HEAD`, a loose ref or a packed one.
fn commit(root: &Path) -> Option<String> {
    let mut git = root.join(".git");
    if git.is_file() {
        let at = std::fs::read_to_string(&git).ok()?;
        git = root.join(at.strip_prefix("gitdir: ")?.trim());
    }
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
    let shared = match std::fs::read_to_string(git.join("commondir")) {
        Ok(dir) => git.join(dir.trim()),
        Err(_) => git,
    };
    let loose = std::fs::read_to_string(shared.join(name)).ok().map(|id| id.trim().to_owned());
    loose.or_else(|| {
        let packed = std::fs::read_to_string(shared.join("packed-refs")).ok()?;
        packed.lines().find_map(|line| line.strip_suffix(name)).map(|id| id.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_what_matters() {
        for (value, expected) in [
            (1_234_567.8, "1,234,568"),
            (100.4, "100"),
            (42.26, "42.3"),
            (3.456, "3.46"),
            (0.1234, "0.123"),
            (0.001234, "0.00123"),
            (0.0, "0.00"),
            (-2_000.0, "-2,000"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn a_checkout_knows_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(commit(dir.path()), None);
        write(".git/HEAD", "ref: refs/heads/main\n");
        write(".git/packed-refs", "# pack\nabc123 refs/heads/main\n");
        assert_eq!(commit(dir.path()).as_deref(), Some("abc123"));
        write(".git/refs/heads/main", "def456\n");
        assert_eq!(commit(dir.path()).as_deref(), Some("def456"));
        // A worktree of it.
        write("tree/.git", &format!("gitdir: {}/.git/worktrees/tree\n", dir.path().display()));
        write(".git/worktrees/tree/HEAD", "ref: refs/heads/main\n");
        write(".git/worktrees/tree/commondir", "../..\n");
        assert_eq!(commit(&dir.path().join("tree")).as_deref(), Some("def456"));
        write(".git/HEAD", "0123\n");
        assert_eq!(commit(dir.path()).as_deref(), Some("0123"));
    }
}
