//! The detection pack that the binary carries, for when there is no `detections/` folder at hand.

use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

static PACK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/detections");

/// Path and text of every file of the pack.
fn files(extension: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &'static Dir<'static>, extension: &str, into: &mut Vec<(PathBuf, String)>) {
        for file in dir.files() {
            let named = file.path().to_string_lossy().ends_with(extension);
            if let (true, Some(text)) = (named, file.contents_utf8()) {
                into.push((PathBuf::from("detections").join(file.path()), text.to_owned()));
            }
        }
        dir.dirs().for_each(|dir| walk(dir, extension, into));
    }
    let mut found = Vec::new();
    walk(&PACK, extension, &mut found);
    found.sort();
    found
}

/// The rules: every `.sql` but for state tables and lookups, which are no rules.
pub fn rules() -> Vec<(PathBuf, String)> {
    let mut rules = files(".sql");
    rules.retain(|(path, _)| {
        !["state", "lookups"].iter().any(|folder| path.starts_with(Path::new("detections").join(folder)))
    });
    rules
}

/// The state tables that rules may join.
pub fn states() -> Vec<(PathBuf, String)> {
    let mut states = files(".sql");
    states.retain(|(path, _)| path.starts_with("detections/state"));
    states
}

/// The lookups that rules may ask.
pub fn lookups() -> Vec<(PathBuf, String)> {
    let mut lookups = [files(".csv"), files(".json")].concat();
    lookups.retain(|(path, _)| path.starts_with("detections/lookups"));
    lookups
}

pub fn tests() -> Vec<(PathBuf, String)> {
    files(".test.yaml")
}

/// The same of a folder on disk. What cannot be read is left to the loader of rules, which reports it.
pub fn read(dir: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(read(&path, extension));
        } else if path.to_string_lossy().ends_with(extension)
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            found.push((path, text));
        }
    }
    found.sort();
    found
}
