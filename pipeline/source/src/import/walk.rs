//! From paths as given to the files that will be read: folders in full, sorted; all mistakes at once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::SourceError;

/// What is taken from folders. Files named explicitly are taken whatever their name.
const EXTENSIONS: [&str; 5] = ["ndjson", "jsonl", "json", "log", "gz"];

/// Deeper folders are a mistake, such as a mount that contains itself.
const DEPTH_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub path: PathBuf,
    pub bytes: u64,
}

/// Every path must exist and be readable. A file that is named twice is read once.
pub(super) fn walk(paths: &[PathBuf]) -> Result<Vec<Found>, SourceError> {
    let (mut found, mut mistakes) = (Vec::new(), Vec::new());
    for path in paths {
        let before = (found.len(), mistakes.len());
        visit(path, true, 0, &mut found, &mut mistakes);
        if (found.len(), mistakes.len()) == before {
            let hint = format!("hint: from folders, files ending in .{} are taken", EXTENSIONS.join(", ."));
            mistakes.push(format!("{}: nothing to import\n{hint}", path.display()));
        }
    }
    if !mistakes.is_empty() {
        return Err(SourceError::Invalid(mistakes.join("\n")));
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|file| seen.insert(file.path.clone()));
    Ok(found)
}

fn visit(path: &Path, named: bool, depth: usize, found: &mut Vec<Found>, mistakes: &mut Vec<String>) {
    if let Err(error) = enter(path, named, depth, found, mistakes) {
        mistakes.push(format!("{}: {error}", path.display()));
    }
}

fn enter(path: &Path, named: bool, depth: usize, found: &mut Vec<Found>, mistakes: &mut Vec<String>) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        // Links to folders inside of a folder could lead in circles.
        if !named && fs::symlink_metadata(path)?.is_symlink() {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("folders nested deeper than {DEPTH_MAX}")));
        }
        let mut inside = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        inside.sort();
        inside.iter().for_each(|path| visit(path, false, depth + 1, found, mistakes));
        return Ok(());
    }
    let wanted = path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext.eq_ignore_ascii_case(known)));
    let taken = named || (wanted && metadata.is_file());
    if !taken {
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file; it is read twice, once for its hash"));
    }
    File::open(path)?;
    found.push(Found { path: path.to_owned(), bytes: metadata.len() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_known_files_from_folders_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/deep")).unwrap();
        for name in ["b/deep/2.ndjson", "b/1.JSON.GZ", "a.log", "a.labels.tsv", "b/readme.md", "c.jsonl"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(dir.path(), dir.path().join("b/loop")).unwrap();
        let check = |paths: &[&str], expected: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| dir.path().join(path)).collect();
            let found = walk(&paths).unwrap();
            let names: Vec<&Path> = found.iter().map(|f| f.path.strip_prefix(dir.path()).unwrap()).collect();
            assert_eq!(names, expected.iter().map(Path::new).collect::<Vec<_>>());
        };
        check(&[""], &["a.log", "b/1.JSON.GZ", "b/deep/2.ndjson", "c.jsonl"]);
        check(&["a.labels.tsv", "b"], &["a.labels.tsv", "b/1.JSON.GZ", "b/deep/2.ndjson"]);
        check(&["a.log", ""], &["a.log", "b/1.JSON.GZ", "b/deep/2.ndjson", "c.jsonl"]);
    }

    #[test]
    fn reports_all_mistakes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        let paths = ["missing", "empty", "gone.json"].map(|name| dir.path().join(name));
        let error = walk(&paths).unwrap_err().to_string();
        for expected in ["missing: No such file", "empty: nothing to import", "gone.json: No such file"] {
            assert!(error.contains(expected), "{error}");
        }
    }
}
