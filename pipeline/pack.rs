//! The detection pack that the binary carries, for when there is no `detections/` folder at hand.

use std::path::{Path, PathBuf};

use detect::Folder;
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

/// All of it but the tests.
pub fn folder() -> Folder {
    let within = |(path, _): &(PathBuf, String), folder: &str| path.starts_with(Path::new("detections").join(folder));
    let (states, mut rules): (Vec<_>, Vec<_>) = files(".sql").into_iter().partition(|file| within(file, "state"));
    rules.retain(|file| !within(file, "lookups"));
    let mut lookups = [files(".csv"), files(".json")].concat();
    lookups.retain(|file| within(file, "lookups"));
    let tuning = files(".yaml").into_iter().find(|(path, _)| path == Path::new("detections/tuning.yaml"));
    Folder { rules, states, lookups, tuning }
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

#[cfg(test)]
mod tests {
    use detect::RuleSet;
    use normalize::Schemas;

    use super::*;

    /// The binary's own pack is the folder it was built from, exceptions included.
    #[test]
    fn the_pack_inside_is_the_folder_outside() {
        let inside = folder();
        assert!(inside.tuning.is_some() && !inside.states.is_empty() && !inside.lookups.is_empty());
        let (schemas, outside) = (Schemas::builtin(), Path::new(env!("CARGO_MANIFEST_DIR")).join("detections"));
        let bundles = crate::rooms::runtime().expect("a runtime").block_on(async {
            let inside = RuleSet::parse_folder(&inside, crate::rooms::wall_clock(), schemas.tables(), "")
                .await
                .expect("the pack is right");
            let outside = RuleSet::load(&outside, schemas.tables(), "").await.expect("the folder is right");
            (inside.bundle, outside.bundle)
        });
        assert_eq!(bundles.0, bundles.1);
    }
}
