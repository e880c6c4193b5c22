//! What format 3 had: an index in which every value is split into words, its paths as JSON, and `dedup.bin`. Segments like that are
//! read and merged for as long as there are any.

use std::collections::BTreeSet;

use crate::search::leaves::Leaves;
use crate::segment::NewFile;
use crate::segment::index::written;
use crate::segment::invert::Inverter;
use crate::segment::paths::PATHS_JSON;

use super::hash;

pub fn build<'a>(raws: impl Iterator<Item = &'a str>) -> Vec<NewFile> {
    let (mut inverter, mut leaves, mut paths) = (Inverter::of_format(3), Leaves::default(), BTreeSet::new());
    for raw in raws {
        inverter.add(raw);
        leaves.read(raw);
        paths.extend(leaves.iter().map(|(path, _)| path.to_owned()));
    }
    let mut files = written(inverter).unwrap();
    files.retain(|file| !file.name.ends_with("paths.bin"));
    files.push(paths_file(paths.iter().map(String::as_str)));
    files
}

pub fn paths_file<'a>(paths: impl Iterator<Item = &'a str>) -> NewFile {
    let bytes = serde_json::to_vec(&paths.collect::<Vec<_>>()).unwrap();
    NewFile { name: format!("index/{PATHS_JSON}"), bytes }
}

/// Fingerprints ascending, eight bytes each, then the row number of each, four bytes each (not in format 1).
pub fn dedup_file<'a>(raws: impl Iterator<Item = &'a str>, with_rows: bool) -> NewFile {
    let print = |raw| u64::from_le_bytes(hash(raw)[..8].try_into().unwrap());
    let mut rows: Vec<(u64, u32)> = raws.map(print).zip(0..).collect();
    rows.sort_unstable();
    let mut bytes: Vec<u8> = rows.iter().flat_map(|(print, _)| print.to_le_bytes()).collect();
    if with_rows {
        bytes.extend(rows.iter().flat_map(|(_, row)| row.to_le_bytes()));
    }
    NewFile { name: "dedup.bin".to_owned(), bytes }
}
