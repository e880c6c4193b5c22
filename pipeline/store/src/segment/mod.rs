//! A segment: the rows of one table from one seal (or from several, merged), immutable. A folder `segments/<table>/<ULID>/` with `data.parquet`
//! (all columns, in admission order), `index/` (row number = doc id) and `meta.json`, which describes the others with their hashes.

mod build;
mod columns;
mod cut;
pub mod index;
pub mod invert;
pub mod layout;
mod merge;
pub mod paths;
mod publish;
mod read;
mod terms;

pub use build::{Built, Rows, build_all, coordinates, hashes, raw_bytes, span};
pub use columns::Columns;
pub use merge::merge;
pub use publish::{TEMPORARY, publish, remove_leftover};
pub use read::{Data, Segment};

use std::collections::BTreeMap;

use event::{Micros, TableSchema};
use serde::{Deserialize, Serialize};

/// Raised when an older version could misread a segment. 1: `meta.json` without `columns`. 2: an index in which every word has
/// positions. 3: an index in which every value is split into words; its paths in `paths.json`. Up to 3 there is a file
/// `dedup.bin` of what `row_hash` says as well. 4: a Parquet file with all columns as they are. All are still read.
pub const FORMAT: u32 = 5;

pub const DATA: &str = "data.parquet";
pub const META: &str = "meta.json";

/// A file that is to be part of a segment; the name is relative to the segment's folder.
pub struct NewFile {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// What `meta.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SegmentMeta {
    pub format: u32,
    pub ulid: String,
    pub table: String,
    pub rows: u64,
    /// Bytes of `raw`.
    pub raw_bytes: u64,
    pub time: Span,
    pub ingest_time: Span,
    pub coordinates: Vec<CoordinateSpan>,
    /// Name and type of every column; absent in format 1, whose Parquet file must be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeMap<String, String>>,
    pub files: Vec<FileMeta>,
}

/// What `meta.json` says of the columns of a table.
pub fn described(table: &TableSchema) -> BTreeMap<String, String> {
    table.columns.iter().map(|column| (column.name.clone(), column.kind.name().to_owned())).collect()
}

/// Both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub first: Micros,
    pub last: Micros,
}

impl Span {
    pub fn contains(&self, time: Micros) -> bool {
        self.first <= time && time <= self.last
    }

    pub fn overlaps(&self, other: &Span) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The smallest span around both.
    pub fn around(&self, other: &Span) -> Span {
        Span { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// Microseconds from first to last.
    pub fn width(&self) -> u64 {
        self.last.saturating_sub(self.first).max(0) as u64
    }
}

/// Which offsets of a partition the rows come from, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinateSpan {
    pub topic: String,
    pub partition: i64,
    pub first: i64,
    pub last: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileMeta {
    pub name: String,
    pub bytes: u64,
    pub blake3: String,
}

impl SegmentMeta {
    pub fn disk_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}
