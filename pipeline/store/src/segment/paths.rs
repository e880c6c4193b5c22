//! All distinct paths of a segment and what kinds of terms each has, so that a query need not search the dictionary for them.
//! They ascend, and of each only what differs from the one before is written: the schemas of custom resources have thousands of
//! long paths.

use std::io::ErrorKind;
use std::path::Path;

use super::NewFile;
use super::index::{FOLDER, Kind};
use crate::StoreError;

const PATHS: &str = "paths.bin";

/// Up to format 3: the paths as they are.
pub const PATHS_JSON: &str = "paths.json";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedPath {
    pub name: String,
    pub kinds: Kinds,
}

/// A bit for each of [`Kind::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// Of paths of which nobody knows.
    const ANY: Kinds = Kinds(0xff);

    pub fn has(self, kind: Kind) -> bool {
        self.0 & Kinds::from(kind).0 != 0
    }

    pub fn add(&mut self, more: Kinds) {
        self.0 |= more.0;
    }
}

impl From<Kind> for Kinds {
    fn from(kind: Kind) -> Kinds {
        let bit = match kind {
            Kind::Rare => 0,
            Kind::Code => 1,
            Kind::Alone => 2,
            Kind::Placed => 3,
            Kind::Run => 4,
        };
        Kinds(1 << bit)
    }
}

/// `paths` ascend.
pub fn file(paths: &[IndexedPath]) -> NewFile {
    let (mut bytes, mut before) = (Vec::new(), "");
    for IndexedPath { name, kinds } in paths {
        let shared = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        put(&mut bytes, shared);
        put(&mut bytes, name.len() - shared);
        bytes.push(kinds.0);
        bytes.extend_from_slice(&name.as_bytes()[shared..]);
        before = name;
    }
    NewFile { name: format!("{FOLDER}/{PATHS}"), bytes }
}

pub fn read(segment: &Path) -> Result<Vec<IndexedPath>, StoreError> {
    let damaged = |what: String| StoreError::Damaged { segment: segment.display().to_string(), what };
    let (file, older) = (segment.join(FOLDER).join(PATHS), segment.join(FOLDER).join(PATHS_JSON));
    match std::fs::read(&file) {
        Ok(bytes) => paths(&bytes).ok_or_else(|| damaged(format!("{PATHS} cannot be read"))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let bytes = std::fs::read(&older).map_err(StoreError::io("read", &older))?;
            let names: Vec<String> =
                serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{PATHS_JSON}: {error}")))?;
            Ok(names.into_iter().map(|name| IndexedPath { name, kinds: Kinds::ANY }).collect())
        }
        Err(error) => Err(StoreError::io("read", &file)(error)),
    }
}

fn paths(mut bytes: &[u8]) -> Option<Vec<IndexedPath>> {
    let mut paths: Vec<IndexedPath> = Vec::new();
    while !bytes.is_empty() {
        let (shared, len) = (take(&mut bytes)?, take(&mut bytes)?);
        let kinds = Kinds(*bytes.split_off_first()?);
        let before = paths.last().map_or(&[][..], |path| path.name.as_bytes());
        let name = [before.get(..shared)?, bytes.split_off(..len)?].concat();
        paths.push(IndexedPath { name: String::from_utf8(name).ok()?, kinds });
    }
    Some(paths)
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn put(bytes: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back() {
        let long = "a.".repeat(200);
        let all = ["", "a", "a.b", "a.b\n", "a.é", "a.è.b", &long, &format!("{long}.x"), "b"];
        let mut sorted = all.to_vec();
        sorted.sort_unstable();
        let kinds = Kind::ALL.into_iter().cycle().map(Kinds::from);
        let sorted: Vec<IndexedPath> =
            sorted.into_iter().zip(kinds).map(|(name, kinds)| IndexedPath { name: name.to_owned(), kinds }).collect();
        let bytes = file(&sorted).bytes;
        assert_eq!(paths(&bytes).unwrap(), sorted);
        // Cut anywhere it is a shorter list or none, never a panic.
        (0..bytes.len()).for_each(|len| _ = paths(&bytes[..len]));
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&[5, 1, 1, b'a'][..], &[0, 9, 1, b'a'], &[0xff; 12], &[0, 1, 1, 0xc3], &[0, 0]] {
            assert_eq!(paths(bytes), None, "{bytes:?}");
        }
    }
}
