//! All distinct paths of a segment, so that a query need not scan the dictionary for them. They ascend, and of each only what
//! differs from the one before is written: the schemas of custom resources have thousands of long paths.

use std::io::ErrorKind;
use std::path::Path;

use super::NewFile;
use super::index::FOLDER;
use crate::StoreError;

const PATHS: &str = "paths.bin";

/// Up to format 3: the paths as they are.
pub const PATHS_JSON: &str = "paths.json";

/// `paths` ascend.
pub fn file<'a>(paths: impl Iterator<Item = &'a str>) -> NewFile {
    let (mut bytes, mut before) = (Vec::new(), "");
    for path in paths {
        let shared = before.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
        put(&mut bytes, shared);
        put(&mut bytes, path.len() - shared);
        bytes.extend_from_slice(&path.as_bytes()[shared..]);
        before = path;
    }
    NewFile { name: format!("{FOLDER}/{PATHS}"), bytes }
}

pub fn read(segment: &Path) -> Result<Vec<String>, StoreError> {
    let damaged = |what: String| StoreError::Damaged { segment: segment.display().to_string(), what };
    let (file, older) = (segment.join(FOLDER).join(PATHS), segment.join(FOLDER).join(PATHS_JSON));
    match std::fs::read(&file) {
        Ok(bytes) => paths(&bytes).ok_or_else(|| damaged(format!("{PATHS} cannot be read"))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let bytes = std::fs::read(&older).map_err(StoreError::io("read", &older))?;
            serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{PATHS_JSON}: {error}")))
        }
        Err(error) => Err(StoreError::io("read", &file)(error)),
    }
}

fn paths(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut paths: Vec<String> = Vec::new();
    while !bytes.is_empty() {
        let (shared, len) = (take(&mut bytes)?, take(&mut bytes)?);
        let before = paths.last().map_or(&[][..], |path| path.as_bytes());
        let path = [before.get(..shared)?, bytes.split_off(..len)?].concat();
        paths.push(String::from_utf8(path).ok()?);
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
        let bytes = file(sorted.iter().copied()).bytes;
        assert_eq!(paths(&bytes).unwrap(), sorted);
        // Cut anywhere it is a shorter list or none, never a panic.
        (0..bytes.len()).for_each(|len| _ = paths(&bytes[..len]));
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&[5, 1, b'a'][..], &[0, 9, b'a'], &[0xff; 12], &[0, 1, 0xc3]] {
            assert_eq!(paths(bytes), None, "{bytes:?}");
        }
    }
}
