//! From paths as given to the files that will be read, in order: folders in full, links followed once. What is not read
//! is listed with the reason.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use event::Source;

use super::layout::{no_events, time_in_name};
use super::sniff::{self, Content};
use crate::SourceError;

/// Taken from folders by their names; others are looked into. Files named explicitly are taken whatever they are.
const EXTENSIONS: [&str; 5] = ["ndjson", "jsonl", "json", "log", "gz"];

/// Deeper folders are a mistake, such as a mount that contains itself.
const DEPTH_MAX: usize = 64;

/// A file as it was found. If it is the same later, so is its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStamp {
    pub path: PathBuf,
    pub bytes: u64,
    /// Nanoseconds since the epoch.
    pub modified: i64,
}

/// A path and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub path: PathBuf,
    pub what: String,
}

/// What an import would read, and what not.
#[derive(Debug, Default)]
pub struct Survey {
    /// By the time in their names, those without one behind them in the order of the paths.
    pub files: Vec<FileStamp>,
    pub skipped: Vec<Remark>,
    /// Found in folders; that a path itself cannot be read is an error.
    pub unreadable: Vec<Remark>,
}

impl Survey {
    /// Every path must exist and be readable, and hold something; all mistakes are told at once. A file that is
    /// found twice is read once.
    pub fn of(paths: &[PathBuf], source: Source) -> Result<Survey, SourceError> {
        let mut walk = Walk { source, survey: Survey::default(), seen: HashSet::new() };
        let mut mistakes = Vec::new();
        for path in paths {
            let before = walk.counts();
            if let Err(error) = walk.enter(path, true, 0) {
                mistakes.push(format!("{}: {error}", path.display()));
            } else if walk.counts() == before {
                let known = EXTENSIONS.join(", .");
                let hint = format!("from folders, files ending in .{known} or beginning with JSON are taken");
                mistakes.push(format!("{}: nothing to import\nhint: {hint}", path.display()));
            }
        }
        let mut survey = walk.survey;
        if mistakes.is_empty() && survey.files.is_empty() && survey.unreadable.is_empty() {
            let why =
                survey.skipped.first().map(|skipped| format!("\nhint: {}: {}", skipped.path.display(), skipped.what));
            mistakes.push(format!("nothing to import{}", why.unwrap_or_default()));
        }
        if !mistakes.is_empty() {
            return Err(SourceError::Invalid(mistakes.join("\n")));
        }
        survey.files.sort_by_cached_key(|file| time_in_name(&file.path).unwrap_or(u64::MAX));
        Ok(survey)
    }
}

const TWICE: &str = "found before under another name";

impl FileStamp {
    pub(super) fn new(path: &Path, metadata: &fs::Metadata) -> FileStamp {
        let modified = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        FileStamp { path: path.to_owned(), bytes: metadata.len(), modified }
    }
}

struct Walk {
    source: Source,
    survey: Survey,
    /// Device and inode of what was found, folders too: links cannot lead in circles.
    seen: HashSet<(u64, u64)>,
}

impl Walk {
    fn counts(&self) -> (usize, usize, usize) {
        (self.survey.files.len(), self.survey.skipped.len(), self.survey.unreadable.len())
    }

    fn skip(&mut self, path: &Path, what: impl Into<String>) {
        self.survey.skipped.push(Remark { path: path.to_owned(), what: what.into() });
    }

    fn enter(&mut self, path: &Path, named: bool, depth: usize) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        let id = (metadata.dev(), metadata.ino());
        if metadata.is_dir() {
            if depth > DEPTH_MAX {
                return Err(io::Error::other(format!("folders nested deeper than {DEPTH_MAX}")));
            }
            if !self.seen.insert(id) {
                self.skip(path, TWICE);
                return Ok(());
            }
            let mut inside = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
            inside.sort();
            for path in inside {
                if let Err(error) = self.enter(&path, false, depth + 1) {
                    self.survey.unreadable.push(Remark { path, what: error.to_string() });
                }
            }
            return Ok(());
        }
        if !metadata.is_file() {
            if named {
                return Err(io::Error::other("not a regular file; it is read twice, once for its hash"));
            }
            self.skip(path, "not regular files");
            return Ok(());
        }
        if let Some(why) = no_events(path, self.source) {
            self.skip(path, why);
            return Ok(());
        }
        if self.seen.contains(&id) {
            self.skip(path, TWICE);
            return Ok(());
        }
        if !named && !is_known(path) {
            let why_not = match sniff::look(path)? {
                Content::Json => None,
                Content::Other => Some("no logs by their names, no JSON by their content"),
                Content::Empty => Some("empty"),
                Content::Unusable(what) => Some(what.split('\n').next().unwrap_or(what)),
            };
            if let Some(why) = why_not {
                self.skip(path, why);
                return Ok(());
            }
        } else {
            File::open(path)?;
        }
        self.seen.insert(id);
        self.survey.files.push(FileStamp::new(path, &metadata));
        Ok(())
    }
}

fn is_known(path: &Path) -> bool {
    path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path, files: &[FileStamp]) -> Vec<String> {
        let name = |file: &FileStamp| file.path.strip_prefix(dir).unwrap().display().to_string();
        files.iter().map(name).collect()
    }

    #[test]
    fn takes_logs_from_folders_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/deep")).unwrap();
        for name in ["b/deep/2.ndjson", "b/1.JSON.GZ", "a.log", "a.labels.tsv", "b/readme.md", "c.jsonl"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::write(dir.path().join("audit.log.3"), "\n{\"kind\":\"Event\"}").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("b/loop")).unwrap();
        let check = |paths: &[&str], expected: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| dir.path().join(path)).collect();
            let survey = Survey::of(&paths, Source::Falco).unwrap();
            assert_eq!(names(dir.path(), &survey.files), expected);
            survey.skipped.into_iter().map(|skipped| skipped.what).collect::<Vec<_>>()
        };
        let skipped = check(&[""], &["a.log", "audit.log.3", "b/1.JSON.GZ", "b/deep/2.ndjson", "c.jsonl"]);
        let other = "no logs by their names, no JSON by their content";
        assert_eq!(skipped, [other, TWICE, other]);
        check(&["a.labels.tsv", "b/deep"], &["a.labels.tsv", "b/deep/2.ndjson"]);
        check(&["c.jsonl", "a.log", ""], &["c.jsonl", "a.log", "audit.log.3", "b/1.JSON.GZ", "b/deep/2.ndjson"]);
    }

    #[test]
    fn times_in_names_decide_the_order() {
        let dir = tempfile::tempdir().unwrap();
        let names_of =
            ["a/audit-2026-01-16T00-00-00.000.log", "a/audit.log", "b/1_CloudTrail_x_20260115T0905Z_z.json.gz"];
        for name in names_of {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        let survey = Survey::of(&[dir.path().to_owned()], Source::Kubernetes).unwrap();
        assert_eq!(names(dir.path(), &survey.files), [names_of[2], names_of[0], names_of[1]]);
    }

    #[test]
    fn reports_all_mistakes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("empty")).unwrap();
        let paths = ["missing", "empty", "gone.json"].map(|name| dir.path().join(name));
        let error = Survey::of(&paths, Source::CloudTrail).unwrap_err().to_string();
        for expected in ["missing: No such file", "empty: nothing to import", "gone.json: No such file"] {
            assert!(error.contains(expected), "{error}");
        }
        let digests = dir.path().join("AWSLogs/111122223333/CloudTrail-Digest");
        fs::create_dir_all(&digests).unwrap();
        fs::write(digests.join("x.json.gz"), "").unwrap();
        let error = Survey::of(std::slice::from_ref(&digests), Source::CloudTrail).unwrap_err().to_string();
        assert!(error.starts_with("nothing to import\nhint: ") && error.contains("digests"), "{error}");
        fs::write(dir.path().join("a.log"), "").unwrap();
        let survey = Survey::of(&[digests, dir.path().join("a.log")], Source::CloudTrail).unwrap();
        assert_eq!((survey.files.len(), survey.skipped.len()), (1, 1));
    }
}
